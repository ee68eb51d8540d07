"""Fetch, read and check suites of minimal pairs in BLiMP's JSONL schema."""

import re
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from ..config.benchmark_names import BLIMP_SHA256, BLIMP_URL, blimp_phenomena
from ..data.folder import is_hidden, list_documents
from ..data.reader import parse_objects, read_objects, require_unicode
from ..errors import UserError
from ..storage.files import sha256, write_whole
from .hub import load_configurations, require_columns

PAIRS_A_PARADIGM = 1000  # in BLiMP
SENTENCES = ["sentence_good", "sentence_bad"]
FIELDS = [*SENTENCES, "linguistics_term", "UID", "pairID"]
SECTION = "evaluation.minimal_pairs"


def download_blimp(output: Path) -> Path:
    """Download BLiMP's public file into ``output``. Raises :class:`UserError` without network or with another hash."""
    path = output / "blimp.zip"

    def fetch(partial: Path) -> None:
        urllib.request.urlretrieve(BLIMP_URL, partial)
        if (digest := sha256(partial)) != BLIMP_SHA256:
            partial.unlink()
            raise UserError(
                f"{BLIMP_URL} has sha256 {digest}, not the pinned {BLIMP_SHA256}; run again, or fetch it by hand"
            )

    try:
        write_whole(path, fetch)
    except OSError as error:
        raise UserError(f"cannot fetch {BLIMP_URL}: {error}; fetch it by hand and set minimal_pairs.path") from error
    return path


def read_hub(name: str, revision: str | None = None) -> pd.DataFrame:
    """Read all pairs of a dataset on the Hub at the commit ``revision``, or of a local copy.

    Each configuration of the dataset is a paradigm, as in BLiMP. Raises :class:`UserError` as :func:`read_suite` does.
    """
    parts = load_configurations(name, revision, "train", SECTION)
    pairs = []
    for configuration, table in parts.items():
        table = table.rename_columns(["pairID" if column == "pair_id" else column for column in table.column_names])
        require_columns(table, set(FIELDS), name)
        rows = enumerate(table.select(FIELDS).to_pylist())
        pairs += [_pair(row, f"{name} ({configuration}), row {number}") for number, row in rows]
    return _checked(pd.DataFrame(pairs, columns=FIELDS), name)


def read_suite(path: Path, tell: bool = False) -> pd.DataFrame:
    """Read all pairs of the .jsonl files in a folder or a .zip, without unpacking to disk.

    ``tell`` is for a user's folder: it prints which files were passed over.
    Raises :class:`UserError` that names the file and line of a pair that is not JSON or lacks a field, or the paradigm
    of a repeated pair, or a paradigm whose name cannot name a file.
    """
    pairs = pd.DataFrame(
        [_pair(row, f"{name}, line {number}") for name, number, row in _rows(path, tell)], columns=FIELDS
    )
    if pairs.empty:
        raise UserError(f"{path} holds no .jsonl file with minimal pairs; check evaluation.minimal_pairs.path")
    return _checked(pairs, str(path))


def _checked(pairs: pd.DataFrame, place: str) -> pd.DataFrame:
    """Return ``pairs`` after checking that each paradigm can name a file, and that no paradigm has a pairID twice."""
    for name in pairs.UID.unique():
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise UserError(
                f"{place}: paradigm {name!r} must have only letters, digits, _ . - in its name, because it names a file"
            )
    repeated = pairs[pairs.duplicated(["UID", "pairID"])]
    if not repeated.empty:
        first = repeated.iloc[0]
        raise UserError(f"{place}: paradigm {first.UID} has pairID {first.pairID} twice; remove one pair")
    return pairs


def missing_of_blimp(pairs: pd.DataFrame) -> str:
    """Say which of BLiMP's 67 paradigms of 1,000 pairs are missing or short in ``pairs``; empty if none are.

    A suite without any of BLiMP's paradigms is another suite, so nothing is missing.
    """
    expected = list(blimp_phenomena())
    counts = pairs.UID.value_counts().reindex(expected, fill_value=0)
    absent, short = counts[counts == 0], counts[(counts > 0) & (counts != PAIRS_A_PARADIGM)]
    if len(absent) == len(expected):
        return ""
    named = [f"no {', '.join(absent.index)}"] if len(absent) else []
    return "; ".join(named + [f"{count} pairs, not {PAIRS_A_PARADIGM}, of {name}" for name, count in short.items()])


def _rows(path: Path, tell: bool) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield the objects in the files of a suite, each with the file's name and the line's number."""
    try:
        if path.is_dir():
            listing = list_documents(path, SECTION, (".jsonl",))
            if tell:
                listing.say(SECTION)
            for file in listing.files:
                yield from ((str(file), number, row) for number, row in read_objects(file))
        else:
            with zipfile.ZipFile(path) as archive:
                for name in sorted(archive.namelist()):
                    parts = PurePosixPath(name).parts
                    if name.lower().endswith(".jsonl") and not is_hidden(part for part in parts if part != ".."):
                        with archive.open(name) as stream:
                            yield from ((name, number, row) for number, row in parse_objects(stream, name))
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise UserError(f"minimal_pairs.path: cannot read {path}: {error}") from error


def _pair(row: dict[str, Any], place: str) -> dict[str, str]:
    """Return the fields of a pair as texts: two sentences, and names, which may be integers in the file."""
    for name in FIELDS:
        value = row.get(name)
        if value is None:
            raise UserError(f"{place}: not a minimal pair ({name} is {'null' if name in row else 'missing'})")
        if not isinstance(value, str) and (name in SENTENCES or type(value) is not int):
            raise UserError(f"{place}: not a minimal pair ({name} is {value!r:.40}, no text)")
        if not require_unicode(str(value), place).strip() and name in SENTENCES:
            raise UserError(f"{place}: not a minimal pair ({name} is empty)")
    return {name: str(row[name]) for name in FIELDS}
