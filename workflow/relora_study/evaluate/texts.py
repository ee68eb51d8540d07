"""Tasks of texts: perplexity by domain, per token and per text, as the paper publishes it, and bits per byte.

The texts are held-out documents, a folder of texts, or a dataset such as Paloma. Bits per byte compare models with
different tokenizers. The held-out loss is of this kind, too: nats a token on the held-out documents, each with a sum of
its own. Every result of the project that is called held-out loss is this one: the study's cells, those of sweeps, and
on validation documents the candidates of a search. A document is read after an end-of-text token, as in training, and
every token of it is scored once, its own end of text included.
"""

import math
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tokenizers.decoders import ByteLevel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..config import Perplexity
from ..config.benchmark_names import PALOMA_DATASETS
from ..data.hub import load_configurations, require_columns
from ..data.reader import RawDocument, list_documents, read_documents, require_unicode
from ..data.tokenizer import open_tokenizer
from ..data.tokens import IdArray, open_documents
from ..errors import UserError
from ..model.scoring import summed_losses

OVERALL, MACRO_AVERAGE = "overall", "macro_average"  # rows of evaluation.csv: all texts, and the mean over domains
AVERAGED = ["token_perplexity", "mean_text_perplexity", "loss", "bits_per_byte"]
SPLIT = "val"
SOURCE = "source"  # the column of Paloma that names a text's domain
COLUMNS = ["document", "tokens", "bytes", "nats"]


@dataclass(frozen=True)
class Texts:
    """The texts of a domain as ids, and the bytes that the scored ids of each text (all but the first) spell."""

    ids: list[list[int]]
    scored_bytes: list[int]


class Encoded(NamedTuple):
    """The texts of a task as ids, by domain; ``stride`` counts tokens between two windows of a long text."""

    domains: dict[str, Texts]
    stride: int


def collect(settings: Perplexity, section: str, documents: Path, tokenizer: Path) -> pd.DataFrame:
    """Return a table of domain and text in order; all texts are strings, or all are lists of ids of a tokenizer.

    ``documents`` and ``tokenizer`` are folders, and ``section`` is the place of ``settings`` in config.yaml.
    Raises :class:`UserError` if the folder or dataset cannot be read or lacks a configured column, or if a value is
    neither a text nor ids, or if a text has no domain.
    """
    known = frozenset(open_tokenizer(tokenizer).get_vocab().values())
    if settings.source == "held_out":
        return _checked(_read_held_out(documents / "held_out.parquet"), known, section)
    if settings.source == "hub":
        return _checked(_read_hub(settings, section), known, section)
    listing = list_documents(Path(settings.path or ""), section)
    listing.say(section)
    return _checked(read_documents(listing, settings.text_column, section), known, section)


def encode(
    settings: Perplexity, table: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, context_length: int, held_out: int
) -> Encoded:
    """Encode the ``table`` of :func:`collect`; ``held_out`` bounds the tokens of a domain of the corpus's own texts."""
    domain_tokens = held_out if settings.source == "held_out" else sys.maxsize
    domains = {
        str(name): take_texts(group.text, tokenizer, settings.max_tokens, domain_tokens)
        for name, group in table.groupby("domain")
    }
    return Encoded(domains, settings.stride or context_length)


def _read_held_out(place: Path) -> Iterator[RawDocument]:
    for document in pd.read_parquet(place).itertuples():
        yield RawDocument(document.id, document.domain, document.text)


def _read_hub(settings: Perplexity, section: str) -> Iterator[RawDocument]:
    """Yield the texts of a dataset.

    Without ``domain_column``, each configuration of the dataset is a domain. If it has only one, its column ``source``
    names the domains, as in Paloma.
    """
    name = settings.path or PALOMA_DATASETS[0]
    parts = load_configurations(name, settings.revision, SPLIT, section)
    for configuration, table in parts.items():
        place = f"{name} ({configuration})"
        column = settings.domain_column or (SOURCE if len(parts) == 1 and SOURCE in table.column_names else None)
        require_columns(table, {settings.text_column, column or settings.text_column}, place)
        domains = table[column].to_pylist() if column else [configuration] * len(table)
        for number, (domain, text) in enumerate(zip(domains, table[settings.text_column].to_pylist(), strict=True)):
            yield RawDocument(f"{place}, row {number}", domain, text)


def _checked(documents: Iterable[RawDocument], known: Collection[int], section: str) -> pd.DataFrame:
    """Return ``documents`` as a table, or raise :class:`UserError` for a wrong value or a mix of texts and ids."""
    rows: list[tuple[str, Any]] = []
    kinds: dict[type, str] = {}
    for document in documents:
        _require_text_or_ids(document, known, section)
        kinds.setdefault(type(document.value), document.id)
        rows.append((_domain(document, section), document.value))
    if str in kinds and list in kinds:
        raise UserError(
            f"{section}.text_column: {kinds[str]} holds a text, and {kinds[list]} holds ids; give texts or ids"
        )
    if not any(text for _, text in rows):
        raise UserError(f"{section}: there is no text to score, only {len(rows)} empty rows; add texts")
    return pd.DataFrame(rows, columns=["domain", "text"])


def _domain(document: RawDocument, section: str) -> str:
    if document.domain is None or not (name := str(document.domain).strip()):
        raise UserError(f"{section}: {document.id} names no domain; fill the domain column")
    if name in (OVERALL, MACRO_AVERAGE):
        raise UserError(
            f"{section}: {document.id} has the domain {name!r}, which is the name of an average; rename the domain"
        )
    return str(document.domain)


def _require_text_or_ids(document: RawDocument, known: Collection[int], section: str) -> None:
    """Raise :class:`UserError` for a value that is not a text, not a list of ids, and not missing."""
    place, value = f"{section}.text_column: {document.id}", document.value
    if isinstance(value, list):
        for position, number in enumerate(value):
            if type(number) is not int or number not in known:
                raise UserError(f"{place} holds {number!r:.40} at position {position}, which is no id of the tokenizer")
    elif isinstance(value, str):
        require_unicode(value, place)
    elif value is not None:
        raise UserError(f"{place} holds {value!r:.40}, which is neither a text nor a list of ids")


def take_texts(texts: pd.Series, tokenizer: PreTrainedTokenizerBase, max_tokens: int, domain_tokens: int) -> Texts:
    """Encode the texts of a domain in order, each cut to ``max_tokens``, until they have ``domain_tokens`` tokens.

    A text is a string or a list of ids. As in the authors' code, no start token is added. Texts of fewer than two
    tokens have nothing to score; they stay, so that they are counted as skipped.
    """
    ids: list[list[int]] = []
    taken = 0
    for text in texts:
        if taken >= domain_tokens:
            break
        ids.append(_ids_of(text, tokenizer)[:max_tokens])
        taken += len(ids[-1])
    return Texts(ids, [spelled_bytes(text_ids[1:], tokenizer) for text_ids in ids])


def _ids_of(text: object, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids of a text or of a list of ids; a missing text has none."""
    if isinstance(text, str):
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    return [int(number) for number in text] if isinstance(text, Iterable) else []


def spelled_bytes(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> int:
    """Count the bytes of UTF-8 that ``ids`` spell.

    A byte-level token has one character for each of its bytes, so its length counts them. Decoding could not: a cut can
    split a character, and decoding turns its part into a replacement character. Other tokenizers do not split
    characters, so their ids are decoded.
    """
    if isinstance(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None), ByteLevel):
        return sum(len(token) for token in tokenizer.convert_ids_to_tokens(ids))
    return len(tokenizer.decode(ids, clean_up_tokenization_spaces=False).encode())


def score(model: PreTrainedModel, encoded: Encoded, batch_tokens: int) -> pd.DataFrame:
    """Score the texts; texts longer than the model's context are read in windows (model.scoring).

    The table has a row for each text: domain, text (its number in the domain), the scored tokens, the bytes that these
    spell, and their summed loss in nats, which is NaN for a text without scored tokens.
    """
    every = [ids for texts in encoded.domains.values() for ids in texts.ids]
    nats = iter(summed_losses(model, every, encoded.stride, batch_tokens))
    rows = []
    for name, texts in encoded.domains.items():
        for number, (ids, size) in enumerate(zip(texts.ids, texts.scored_bytes, strict=True)):
            rows.append((name, number, max(0, len(ids) - 1), size, next(nats)))
    return pd.DataFrame(rows, columns=["domain", "text", "tokens", "bytes", "nats"])


def measure(settings: Perplexity, scored: pd.DataFrame) -> pd.DataFrame:
    """Summarise the table of :func:`score` in a table of item, metric and value.

    Items are each domain, ``overall`` (all texts) and ``macro_average`` (the mean over domains). The metric ``skipped``
    counts texts without a token to score, and ``non_finite`` texts with an infinite or undefined loss. Such texts enter
    no other metric.
    """
    metrics = {str(name): _perplexity_metrics(group) for name, group in scored.groupby("domain", sort=False)}
    averages = pd.DataFrame(metrics).T[AVERAGED].mean()
    metrics |= {OVERALL: _perplexity_metrics(scored), MACRO_AVERAGE: averages.to_dict()}
    rows = [(item, metric, value) for item, values in metrics.items() for metric, value in values.items()]
    return pd.DataFrame(rows, columns=["item", "metric", "value"])


def _perplexity_metrics(texts: pd.DataFrame) -> dict[str, float]:
    """Return the metrics of ``texts`` by name.

    The paper publishes ``mean_text_perplexity``, as pico-train's Paloma evaluation computes it.
    """
    finite = texts[np.isfinite(texts.nats)]
    nats, tokens, size = finite.nats.sum(), finite.tokens.sum(), finite.bytes.sum()
    loss = nats / tokens if tokens else math.nan
    return {
        "token_perplexity": float(np.exp(loss)),
        "mean_text_perplexity": float(np.exp(finite.nats / finite.tokens).mean()),
        "loss": float(loss),
        "bits_per_byte": float(nats / math.log(2) / size) if size else math.nan,
        "texts": len(finite),
        "tokens": int(tokens),
        "bytes": int(size),
        "skipped": int((texts.tokens == 0).sum()),
        "non_finite": int((texts.tokens > 0).sum() - len(finite)),
    }


def held_out_texts(tokens: Path, most: int, context_length: int, tokenizer: PreTrainedTokenizerBase) -> Texts:
    """The documents in the first ``most`` held-out ids of the folder ``tokens``. An end of text spells no bytes."""
    documents = open_documents(tokens, "held_out", most, context_length)
    return Texts([ids.tolist() for ids in documents], [_bytes(ids, tokenizer) for ids in documents])


def _bytes(ids: IdArray, tokenizer: PreTrainedTokenizerBase) -> int:
    return spelled_bytes([number for number in ids.tolist() if number != ids[0]], tokenizer)


def document_losses(model: PreTrainedModel, texts: Texts, batch_tokens: int) -> pd.DataFrame:
    """Score ``texts``, a row each: document (its number), the scored tokens, their bytes, and their summed nats.

    A document longer than the model's context is read in parts that follow each other.
    """
    scored = score(model, Encoded({"": texts}, model.config.max_position_embeddings), batch_tokens)
    return scored.rename(columns={"text": "document"})[COLUMNS]


def mean_loss(losses: pd.DataFrame) -> float:
    """The loss (nats a token) of a table of :func:`document_losses`."""
    return float(losses.nats.sum(skipna=False) / losses.tokens.sum())
