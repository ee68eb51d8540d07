"""Suites of minimal pairs in BLiMP's JSONL schema: fetched, checked, read."""

import re
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from ..data.folder import is_hidden, list_documents
from ..data.reader import parse_objects, read_objects, require_unicode
from ..errors import UserError
from ..files import sha256, write_whole
from .hub import load_configurations, require_columns

# The file that the benchmark's authors publish (CC-BY 4.0), by its content.
BLIMP_URL = "https://github.com/alexwarstadt/blimp/raw/master/BLiMP.zip"
BLIMP_SHA256 = "172a1a714d72e72a89e8384dd531483f3d0f8a9aee3d33dccaf7992d8cecbb73"
BLIMP_PARADIGMS = Path(__file__).parents[3] / "resources" / "blimp_paradigms.csv"
PAIRS_A_PARADIGM = 1000  # of BLiMP
SENTENCES = ["sentence_good", "sentence_bad"]
FIELDS = [*SENTENCES, "linguistics_term", "UID", "pairID"]
SECTION = "evaluation.minimal_pairs"


def download_blimp(output: Path) -> Path:
    """BLiMP's public file, in ``output``. Raises :class:`UserError` without network or where the hash differs."""
    path = output / "blimp.zip"

    def fetch(partial: Path) -> None:
        urllib.request.urlretrieve(BLIMP_URL, partial)
        if (found := sha256(partial)) != BLIMP_SHA256:
            partial.unlink()
            raise UserError(f"{BLIMP_URL} has sha256 {found}, not the pinned {BLIMP_SHA256}")

    try:
        write_whole(path, fetch)
    except OSError as error:
        raise UserError(f"cannot fetch {BLIMP_URL}: {error}; fetch it by hand and set minimal_pairs.path") from error
    return path


def read_hub(name: str, revision: str | None = None) -> pd.DataFrame:
    """All pairs of a dataset on the Hub, at the commit ``revision``, or of a local copy of one.

    Its configurations are paradigms, as BLiMP's.
    """
    parts = load_configurations(name, revision, "train", SECTION)
    pairs = []
    for configuration, table in parts.items():
        table = table.rename_columns(["pairID" if column == "pair_id" else column for column in table.column_names])
        require_columns(table, set(FIELDS), name)
        rows = enumerate(table.select(FIELDS).to_pylist())
        pairs += [_pair(row, f"{name} ({configuration}), row {number}") for number, row in rows]
    return _checked(pd.DataFrame(pairs, columns=FIELDS), name)


def read_suite(path: Path) -> pd.DataFrame:
    """All pairs of a .zip or a folder of .jsonl files; nothing is unpacked to disk.

    Raises :class:`UserError` that names the file and line of a pair that is not JSON or lacks a field, or the paradigm
    of one that repeats or whose name could lead out of a folder.
    """
    pairs = pd.DataFrame([_pair(row, f"{name}, line {number}") for name, number, row in _rows(path)], columns=FIELDS)
    if pairs.empty:
        raise UserError(f"{path} holds no .jsonl file with minimal pairs")
    return _checked(pairs, str(path))


def _checked(pairs: pd.DataFrame, place: str) -> pd.DataFrame:
    """``pairs``, whose paradigms can name files and whose ids are unique in them."""
    for name in pairs.UID.unique():
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise UserError(
                f"{place}: paradigm {name!r} must be named by letters, digits, _ . - alone: it names a file"
            )
    repeated = pairs[pairs.duplicated(["UID", "pairID"])]
    if not repeated.empty:
        first = repeated.iloc[0]
        raise UserError(f"{place}: paradigm {first.UID} has pairID {first.pairID} twice")
    return pairs


def missing_of_blimp(pairs: pd.DataFrame) -> str:
    """What ``pairs`` lack of BLiMP's 67 paradigms of 1,000 pairs, in words; empty where they lack nothing.

    A suite with none of BLiMP's paradigms is another suite, and lacks nothing.
    """
    expected = pd.read_csv(BLIMP_PARADIGMS, comment="#").paradigm
    counts = pairs.UID.value_counts().reindex(expected, fill_value=0)
    absent, short = counts[counts == 0], counts[(counts > 0) & (counts != PAIRS_A_PARADIGM)]
    if len(absent) == len(expected):
        return ""
    named = [f"no {', '.join(absent.index)}"] if len(absent) else []
    return "; ".join(named + [f"{count} pairs, not {PAIRS_A_PARADIGM}, of {name}" for name, count in short.items()])


def _rows(path: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """The objects of the suite's files: each with its file's name and its line."""
    try:
        if path.is_dir():
            listing = list_documents(path, SECTION, (".jsonl",))
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
    """The fields of a pair: two sentences, and names, which may be numbers."""
    for name in FIELDS:
        value = row.get(name)
        if value is None:
            raise UserError(f"{place}: not a minimal pair ({name} is {'null' if name in row else 'missing'})")
        if not isinstance(value, str) and (name in SENTENCES or type(value) is not int):
            raise UserError(f"{place}: not a minimal pair ({name} is {value!r:.40}, no text)")
        if not require_unicode(str(value), place).strip() and name in SENTENCES:
            raise UserError(f"{place}: not a minimal pair ({name} is empty)")
    return {name: str(row[name]) for name in FIELDS}
