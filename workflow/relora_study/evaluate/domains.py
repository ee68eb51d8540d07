"""Collect the texts for perplexity, by domain: held-out documents, a folder of texts, or a dataset such as Paloma."""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from ..config import Perplexity
from ..data.folder import list_documents
from ..data.reader import RawDocument, read_documents, require_unicode
from ..errors import UserError
from .hub import load_configurations, require_columns
from .perplexity import MACRO_AVERAGE, OVERALL

SECTION = "evaluation.perplexity"
PALOMA = "pico-lm/pretokenized-paloma-tinsy"  # the sample of Paloma that the paper's training code evaluates on
SPLIT = "val"
SOURCE = "source"  # the column of Paloma that names a text's domain


def collect_texts(settings: Perplexity, held_out: Path, known: Collection[int]) -> pd.DataFrame:
    """Return a table of domain and text in order; all texts are strings, or all are lists of the ids ``known``.

    ``held_out`` is the table of held-out documents. Raises :class:`UserError` if the folder or dataset cannot be read
    or lacks a configured column, or if a value is neither a text nor ids, or if a text has no domain.
    """
    if settings.source == "held_out":
        return _checked(_read_held_out(held_out), known)
    if settings.source == "hub":
        return _checked(_read_hub(settings), known)
    listing = list_documents(Path(settings.path or ""), SECTION)
    listing.say(SECTION)
    return _checked(read_documents(listing, settings.text_column, SECTION), known)


def _read_held_out(place: Path) -> Iterator[RawDocument]:
    for document in pd.read_parquet(place).itertuples():
        yield RawDocument(document.id, document.domain, document.text)


def _read_hub(settings: Perplexity) -> Iterator[RawDocument]:
    """Yield the texts of a dataset.

    Without ``domain_column``, each configuration of the dataset is a domain. If it has only one, its column ``source``
    names the domains, as in Paloma.
    """
    name = settings.path or PALOMA
    parts = load_configurations(name, settings.revision, SPLIT, SECTION)
    for configuration, table in parts.items():
        place = f"{name} ({configuration})"
        column = settings.domain_column or (SOURCE if len(parts) == 1 and SOURCE in table.column_names else None)
        require_columns(table, {settings.text_column, column or settings.text_column}, place)
        domains = table[column].to_pylist() if column else [configuration] * len(table)
        for number, (domain, text) in enumerate(zip(domains, table[settings.text_column].to_pylist(), strict=True)):
            yield RawDocument(f"{place}, row {number}", domain, text)


def _checked(documents: Iterable[RawDocument], known: Collection[int]) -> pd.DataFrame:
    """Return ``documents`` as a table, or raise :class:`UserError` for a wrong value or a mix of texts and ids."""
    rows: list[tuple[str, Any]] = []
    kinds: dict[type, str] = {}
    for document in documents:
        _require_text_or_ids(document, known)
        kinds.setdefault(type(document.value), document.id)
        rows.append((_domain(document), document.value))
    if str in kinds and list in kinds:
        raise UserError(
            f"{SECTION}.text_column: {kinds[str]} holds a text, and {kinds[list]} holds ids; give texts or ids"
        )
    if not any(text for _, text in rows):
        raise UserError(f"{SECTION}: there is no text to score, only {len(rows)} empty rows; add texts")
    return pd.DataFrame(rows, columns=["domain", "text"])


def _domain(document: RawDocument) -> str:
    if document.domain is None or not (name := str(document.domain).strip()):
        raise UserError(f"{SECTION}: {document.id} names no domain; fill the domain column")
    if name in (OVERALL, MACRO_AVERAGE):
        raise UserError(
            f"{SECTION}: {document.id} has the domain {name!r}, which is the name of an average; rename the domain"
        )
    return str(document.domain)


def _require_text_or_ids(document: RawDocument, known: Collection[int]) -> None:
    """Raise :class:`UserError` for a value that is not a text, not a list of ids, and not missing."""
    place, value = f"{SECTION}.text_column: {document.id}", document.value
    if isinstance(value, list):
        for position, number in enumerate(value):
            if type(number) is not int or number not in known:
                raise UserError(f"{place} holds {number!r:.40} at position {position}, which is no id of the tokenizer")
    elif isinstance(value, str):
        require_unicode(value, place)
    elif value is not None:
        raise UserError(f"{place} holds {value!r:.40}, which is neither a text nor a list of ids")
