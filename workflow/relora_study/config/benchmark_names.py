"""What suites and texts are called: BLiMP and Paloma by their content or place on the Hub, never by a file's name."""

import csv
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

from .measuring import Evaluation, MinimalPairs, Perplexity, Report

BLIMP, PALOMA = "BLiMP", "Paloma"
TEMPLATED = "the project's templated minimal pairs (not BLiMP)"
BLIMP_DATASETS = ("nyu-mll/blimp",)  # repositories on the Hub
# The file of BLiMP's authors (CC-BY 4.0), pinned by its hash.
BLIMP_URL = "https://github.com/alexwarstadt/blimp/raw/master/BLiMP.zip"
BLIMP_SHA256 = "172a1a714d72e72a89e8384dd531483f3d0f8a9aee3d33dccaf7992d8cecbb73"
PALOMA_DATASETS = ("pico-lm/pretokenized-paloma-tinsy", "allenai/paloma")
PARADIGMS = Path(__file__).parents[3] / "resources" / "blimp_paradigms.csv"


def is_blimp(pairs: MinimalPairs) -> bool:
    """Tell whether the pairs are BLiMP: its pinned file, its dataset, or files of exactly its 67 paradigms."""
    if pairs.source in ("url", "templated"):
        return pairs.source == "url"
    if pairs.path is None:
        return pairs.source == "hub"
    place = Path(pairs.path)
    if pairs.source == "hub" and not place.is_dir():
        return pairs.path in BLIMP_DATASETS
    return set(_paradigms(place)) == blimp_phenomena().keys()


def is_paloma(texts: Perplexity) -> bool:
    """Tell whether the texts are Paloma's, by their dataset on the Hub."""
    if texts.source != "hub" or texts.path is None:
        return texts.source == "hub"
    return texts.path in PALOMA_DATASETS and not Path(texts.path).is_dir()


def is_users(data: MinimalPairs | Perplexity) -> bool:
    """Tell whether ``data`` are files of the user: a path, or the folder of a copy of a dataset on the Hub."""
    return data.source == "path" or (data.source == "hub" and data.path is not None and Path(data.path).is_dir())


def plain_name(path: str | None) -> str:
    """Name a suite or texts after ``path``; a benchmark's name gets "(by name)", because the content is not checked."""
    stem = Path(path or "").stem
    return f"{stem} (by name)" if stem.casefold() in (BLIMP.casefold(), PALOMA.casefold()) else stem


def suite_name(evaluation: Evaluation, report: Report) -> str:
    """The name of the minimal pairs: from the settings, else from their source (built-in, BLiMP, file, dataset)."""
    pairs = evaluation.minimal_pairs
    if report.suite:
        return report.suite
    if pairs.source == "templated":
        return TEMPLATED
    return BLIMP if is_blimp(pairs) else plain_name(pairs.path)


def texts_name(evaluation: Evaluation, report: Report) -> str:
    """The name of the texts of perplexity: from the settings, else from their source (held out, Paloma, file)."""
    texts = evaluation.perplexity
    if report.texts:
        return report.texts
    if texts.source == "held_out":
        return "held-out documents"
    return PALOMA if is_paloma(texts) else plain_name(texts.path)


def blimp_phenomena() -> dict[str, str]:
    """Return the phenomenon of each of BLiMP's 67 paradigms, by the paradigm's name."""
    with PARADIGMS.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(line for line in stream if not line.startswith("#"))
        return {row["paradigm"]: row["phenomenon"] for row in rows}


def _paradigms(place: Path) -> Iterator[str]:
    """Yield the paradigms in ``place``.

    In a .zip or folder of .jsonl files, the first pair of each file names one; in a dataset's copy, each folder does.
    """
    try:
        if place.is_dir():
            yield from {file.parent.name for file in place.rglob("*.parquet")}
            for file in place.rglob("*.jsonl"):
                with file.open("rb") as lines:
                    yield _paradigm(lines.readline())
        elif zipfile.is_zipfile(place):
            with zipfile.ZipFile(place) as archive:
                for name in archive.namelist():
                    if name.endswith(".jsonl") and "__MACOSX" not in name:
                        with archive.open(name) as lines:
                            yield _paradigm(lines.readline())
    except (OSError, zipfile.BadZipFile):
        return  # the command that reads the pairs reports the error


def _paradigm(line: bytes) -> str:
    try:
        return str(json.loads(line)["UID"])
    except (ValueError, KeyError, TypeError):
        return ""
