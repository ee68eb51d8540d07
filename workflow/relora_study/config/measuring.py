"""Sections about what is measured and shown: evaluation, learning dynamics, the report."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .fields import PositiveInt, Revision, Section, Sequences, Tokens, Unit, is_none


class Perplexity(Section):
    """Which texts are scored, and how."""

    source: Literal["held_out", "path", "hub"]
    """held_out (of the corpus, by domain) | path (a folder of texts) | hub.

    In a folder each sub-folder is a domain.
    """
    path: str | None
    """Folder (path); or dataset, or folder of a copy (hub).

    Null with hub: the sample of Paloma that the paper's code evaluates on.
    """
    revision: Revision = None
    """The dataset's commit (hub); while it is null, a run stops and names the newest."""
    text_column: str
    """Column of texts, or of lists of the tokenizer's ids."""
    domain_column: str | None
    """Column that names a text's domain (hub).

    Null: the dataset's configurations are the domains, or else its column `source` names them.
    """
    max_tokens: Annotated[int, Field(ge=2), Unit("tokens")]
    """Tokens that are read of a text at most; the paper cuts at its context length."""
    stride: Tokens | None
    """Tokens from one window to the next in longer texts; null: the context length."""

    @model_validator(mode="after")
    def _placed(self) -> Self:
        if self.source == "path" and not self.path:
            raise ValueError("path must name a folder when source is path")
        return self


class MinimalPairs(Section):
    """Which pairs of sentences are judged, and how."""

    source: Literal["templated", "path", "url", "hub"]
    """templated (the project's own small suite) | path | url (BLiMP) | hub."""
    path: str | None
    """A .zip or folder of .jsonl files (path), or dataset (hub).

    The files are in BLiMP's schema. Null with hub: BLiMP.
    """
    revision: Revision = None
    """The dataset's commit (hub); while it is null, a run stops and names the newest."""
    start_token: bool
    """Whether the end-of-text token is put before each sentence."""
    leading_space: bool
    """Whether a space is put before each sentence.

    The harness lm_eval puts both, the paper's code neither.
    """

    @model_validator(mode="after")
    def _placed(self) -> Self:
        if self.source == "path" and not self.path:
            raise ValueError("path must name a .zip or a folder when source is path")
        return self


class Evaluation(Section):
    """What each checkpoint is measured on."""

    perplexity: Perplexity
    """Texts whose perplexity is measured."""
    minimal_pairs: MinimalPairs
    """Pairs of sentences of which the good one should be likelier."""
    batch_tokens: Tokens
    """Tokens in one forward pass; more helps a GPU, and leaves a CPU's cache."""


class Dynamics(Section):
    """How spectra are taken."""

    batch_sequences: Sequences
    """Held-out sequences of the fixed batch of the held-out loss and the gradients."""
    subspace_dimensions: PositiveInt
    """Leading directions of successive updates whose overlap is read."""


class Report(Section):
    """How figures and the paper look."""

    title: str
    """Title of the paper."""
    published: Literal["auto", "overlay", "off"]
    """auto (where all shapes are the paper's) | overlay | off: the published curves.

    `overlay` draws them in any case; the sizes must be called as the paper's, tiny and small.
    """
    suite: Annotated[str | None, Field(exclude_if=is_none)] = None
    """What figures call the minimal pairs.

    Null: BLiMP where they are BLiMP's 67 paradigms, else the name of their file or dataset.
    """
    texts: Annotated[str | None, Field(exclude_if=is_none)] = None
    """What the report calls the texts of perplexity.

    Null: Paloma for Paloma's datasets on the Hub, else the name of their folder or dataset.
    """
