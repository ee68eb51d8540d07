"""Suites of minimal pairs in BLiMP's JSONL schema: fetched, checked, read."""

import io
import json
import re
import urllib.request
import zipfile
from pathlib import Path

import pandas as pd

from ..errors import UserError
from ..files import sha256, write_whole
from .hub import load_configurations, require_columns

# The file that the benchmark's authors publish (CC-BY 4.0), by its content.
BLIMP_URL = "https://github.com/alexwarstadt/blimp/raw/master/BLiMP.zip"
BLIMP_SHA256 = "172a1a714d72e72a89e8384dd531483f3d0f8a9aee3d33dccaf7992d8cecbb73"
BLIMP_PARADIGMS = Path(__file__).parents[3] / "resources" / "blimp_paradigms.csv"
PAIRS_A_PARADIGM = 1000  # of BLiMP
FIELDS = ["sentence_good", "sentence_bad", "linguistics_term", "UID", "pairID"]


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
    parts = load_configurations(name, revision, "train", "evaluation.minimal_pairs")
    pairs = pd.concat(parts.values(), ignore_index=True).rename(columns={"pair_id": "pairID"})
    require_columns(pairs, set(FIELDS), name)
    return _checked(pairs[FIELDS].astype(str), name)


def read_suite(path: Path) -> pd.DataFrame:
    """All pairs of a .zip or a folder of .jsonl files; nothing is unpacked to disk.

    Raises :class:`UserError` that names the file and line of a pair that is not JSON or lacks a field, or the paradigm
    of one that repeats or whose name could lead out of a folder.
    """
    pairs = pd.DataFrame(
        [_parse(name, number, line) for name, text in _texts(path) for number, line in enumerate(text.splitlines(), 1)]
    )
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


def _texts(path: Path) -> list[tuple[str, str]]:
    try:
        if path.is_dir():
            return [(str(file), file.read_text(encoding="utf-8")) for file in sorted(path.rglob("*.jsonl"))]
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".jsonl") and "__MACOSX" not in name)
            return [(name, archive.read(name).decode("utf-8")) for name in names]
    except (OSError, UnicodeDecodeError, zipfile.BadZipFile) as error:
        raise UserError(f"minimal_pairs.path: cannot read {path}: {error}") from error


def _parse(name: str, number: int, line: str) -> dict[str, str]:
    try:
        pair = json.loads(line)
        if empty := [field for field in FIELDS if pair[field] is None]:
            raise ValueError(f"{', '.join(empty)} is null")
        return {field: str(pair[field]) for field in FIELDS}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{name}, line {number}: not a minimal pair ({type(error).__name__}: {error})") from error
