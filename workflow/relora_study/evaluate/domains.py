"""The texts whose perplexity is measured, by domain: held out of the corpus, a folder, or Paloma."""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from ..config import Perplexity
from ..data.folder import list_documents
from ..data.reader import RawDocument, read_documents, require_unicode
from ..errors import UserError
from .hub import load_configurations, require_columns

SECTION = "evaluation.perplexity"
PALOMA = "pico-lm/pretokenized-paloma-tinsy"  # the sample of Paloma that the paper's training code evaluates on
SPLIT = "val"
SOURCE = "source"  # Paloma's column that names a text's domain
OVERALL, MACRO_AVERAGE = "overall", "macro_average"  # the tables' names for all texts, and for the mean over domains


def collect_texts(settings: Perplexity, held_out: Path, known: Collection[int]) -> pd.DataFrame:
    """Columns domain and text, in order; text is a string, or a list of ids, which are all among ``known``.

    Raises :class:`UserError` where the folder or dataset cannot be read or lacks the columns that are named, or where
    a text or a domain's name is none.
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
    """The dataset's texts; without ``domain_column``, a domain is a configuration, or else what Paloma calls source."""
    name = settings.path or PALOMA
    parts = load_configurations(name, settings.revision, SPLIT, SECTION)
    for configuration, table in parts.items():
        place = f"{name} ({configuration})"
        column = settings.domain_column or (SOURCE if len(parts) == 1 and SOURCE in table.column_names else None)
        require_columns(table, {settings.text_column, column or settings.text_column}, place)
        domains = table[column].to_pylist() if column else [configuration] * len(table)
        for number, (domain, text) in enumerate(zip(domains, table[settings.text_column].to_pylist(), strict=True)):
            yield RawDocument(f"{place}, row {number}", domain, text)


def _checked(rows: Iterable[RawDocument], known: Collection[int]) -> pd.DataFrame:
    """The rows as a table, when each is a text or ids, all are one of both, and each domain has a name of its own."""
    found: list[tuple[str, Any]] = []
    kinds: dict[type, str] = {}
    for row in rows:
        _require_text_or_ids(row, known)
        kinds.setdefault(type(row.value), row.id)
        found.append((_domain(row), row.value))
    if str in kinds and list in kinds:
        raise UserError(f"{SECTION}.text_column: {kinds[str]} holds a text, and {kinds[list]} ids; give one of both")
    if not any(text for _, text in found):
        raise UserError(f"{SECTION}: there is no text to score, only {len(found)} empty rows; add texts")
    return pd.DataFrame(found, columns=["domain", "text"])


def _domain(row: RawDocument) -> str:
    if row.domain is None or not (name := str(row.domain).strip()):
        raise UserError(f"{SECTION}: {row.id} names no domain")
    if name in (OVERALL, MACRO_AVERAGE):
        raise UserError(f"{SECTION}: {row.id} is of a domain called {name!r}, as an average is; rename the domain")
    return str(row.domain)


def _require_text_or_ids(row: RawDocument, known: Collection[int]) -> None:
    """Raise :class:`UserError`, with the row, for anything but a text, a list of ids, or nothing (a text to skip)."""
    place = f"{SECTION}.text_column: {row.id}"
    if isinstance(row.value, list):
        for position, one in enumerate(row.value):
            if type(one) is not int or one not in known:
                raise UserError(f"{place} holds {one!r:.40} at position {position}, which is no id of the tokenizer")
    elif isinstance(row.value, str):
        require_unicode(row.value, place)
    elif row.value is not None:
        raise UserError(f"{place} holds {row.value!r:.40}, which is neither a text nor a list of ids")
