"""Sections about the corpus: its source, the held-out part, and the tokenizer."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .fields import (
    BelowOne,
    NonNegativeInt,
    PositiveInt,
    ProperShare,
    Revision,
    Section,
    Tokens,
    Unit,
    at_default,
)


class Files(Section):
    """The user's files that `source: files` reads."""

    path: str | None
    """Folder of .txt, .jsonl or .parquet files; each sub-folder is a domain."""
    text_column: str
    """Column of .jsonl and .parquet that holds a document."""


class HubPretokenized(Section):
    """The parquet shards of token ids that `source: hub_pretokenized` reads."""

    path: str | None
    """Folder that holds a copy of the repository; null: download the shards."""
    repository: str
    """Dataset on the Hugging Face Hub.

    Its shards are the files data/train-NNNNN-of-NNNNN.parquet (docs/paper_scale.md).
    """
    revision: Revision
    """The repository's commit, 40 hexadecimal digits; a download needs it."""
    column: str
    """Column of id lists, each of at least model.context_length + 1 ids; longer ones are cut."""
    shards_in_all: Annotated[int, Field(gt=0, le=99_999), Unit("shards")]
    """Number of shards of the whole corpus, as the files' names give it."""
    rows_per_shard: Annotated[PositiveInt, Unit("rows")]
    """Rows that each shard holds."""
    first_shard: NonNegativeInt
    """Number of the shard that training begins with; it reads in order from there."""
    shards: Annotated[PositiveInt, Unit("shards")]
    """Shards that train; they hold at least train.steps x train.batch_size rows."""
    held_out_shard: NonNegativeInt
    """Number of the shard whose first rows are the fixed held-out batch."""

    @property
    def training_shards(self) -> range:
        """Return the numbers of the shards that train, in reading order."""
        return range(self.first_shard, self.first_shard + self.shards)

    @model_validator(mode="after")
    def _there(self) -> Self:
        last = max(self.training_shards[-1], self.held_out_shard)
        if last >= self.shards_in_all:
            raise ValueError(f"shard {last} is not one of the shards_in_all {self.shards_in_all}, numbered from 0")
        if self.held_out_shard in self.training_shards:
            raise ValueError(f"held_out_shard {self.held_out_shard} is among the shards that train")
        return self


class Tokenizer(Section):
    """The source of the tokenizer."""

    source: Literal["train", "path", "hub"]
    """train (byte-level BPE on the training documents) | path | hub.

    Shards of token ids (`source: hub_pretokenized`) need the tokenizer that made them.
    """
    name: str | None
    """Folder (path) or repository (hub)."""
    revision: Revision = None
    """The repository's commit (hub); while it is null, a run stops and names the newest."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.source != "train" and not self.name:
            raise ValueError(f"name must be a folder or repository when source is {self.source}")
        return self


class Data(Section):
    """From a corpus to token ids."""

    source: Literal["pypi_news", "files", "hub_pretokenized"]
    """pypi_news | files | hub_pretokenized (token ids; the paper's corpus)."""
    files: Files
    """What `source: files` reads."""
    hub_pretokenized: HubPretokenized
    """What `source: hub_pretokenized` reads (docs/paper_scale.md)."""
    held_out_fraction: ProperShare
    """Share of the source's documents kept out of training, chosen by hash."""
    validation_fraction: Annotated[BelowOne, at_default(0.0)] = 0.0
    """Share of the source's documents kept for choosing settings (`tuning`), chosen by hash."""
    held_out_tokens: Tokens
    """Most tokens of held-out documents on which a cell's last checkpoint is scored.

    As many validation tokens score the candidates of a search. The documents come in the order of their hashes, so the
    first of them are a fair sample.
    """
    held_out_tokens_per_domain: Tokens
    """Most tokens of a domain that perplexity reads."""
    order: Literal["seed", "corpus"]
    """seed (each seed draws an order of the sequences) | corpus (as the corpus has them).

    Methods of one seed read the same sequences in the same order, so that their losses are paired. A corpus whose
    published order is part of the recipe needs `corpus`.
    """
    token_dtype: Literal["auto", "uint16", "uint32"]
    """auto (the smaller that fits the vocabulary) | uint16 | uint32."""
    tokenizer: Tokenizer
    """Text to token ids."""

    @model_validator(mode="after")
    def _placed(self) -> Self:
        if self.source == "files" and not self.files.path:
            raise ValueError("files.path must name a folder when source is files")
        if self.source == "hub_pretokenized" and self.tokenizer.source == "train":
            raise ValueError("tokenizer.source must be path or hub when source is hub_pretokenized: it has no texts")
        if self.source == "hub_pretokenized" and self.validation_fraction:
            raise ValueError("validation_fraction must be 0 when source is hub_pretokenized: it has no documents")
        if self.held_out_fraction + self.validation_fraction >= 1:
            raise ValueError("held_out_fraction and validation_fraction leave no document to train on")
        return self

    def dtype(self, vocab_size: int) -> Literal["uint16", "uint32"]:
        """Return the integer type of ids on disk: the configured type, or the smallest for ``vocab_size`` ids."""
        if self.token_dtype != "auto":
            return self.token_dtype
        return "uint16" if vocab_size <= 2**16 else "uint32"
