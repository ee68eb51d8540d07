"""What the start of a run knows, each as the text of a file in `results/`: settings, code, and the user's files.

One rule writes these files (rules/settings.smk), and a job takes as inputs the ones that it depends on. So a changed
key, file or module reruns what reads it, by file times alone: without Snakemake's record of parameters, too.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from ..config import Cell, Study
from ..config.benchmark_names import is_users
from ..config.settings import Experiments, as_yaml, settings_files
from ..errors import UserError
from ..storage.files import sha256, write_text
from ..storage.hashes import PACKAGE, source_files

# The commands whose changed code runs again; training's never does.
STAGES = {name: f"{name}.__main__" for name in ("data", "evaluate", "dynamics", "report")} | {"search": "search"}
TEMPLATE = Path(".snakemake") / "relora_study" / "text.jinja2"  # a dry run writes nothing else

MARK = "schema_version"  # the file in the results' folder that names the version that made it

Texts = Mapping[str, Callable[[], str]]  # by the file's path in `results/`


def texts_at_start(study: Study, cells: Mapping[str, Cell], experiments: Experiments) -> Texts:
    """Return how to make the text of each file that the start of a run decides."""
    settings = {name: partial(as_yaml, of) for name, of in settings_files(study, cells, experiments).items()}
    code = {f"settings/code-{stage}.txt": partial(code_listing, stage) for stage in STAGES}
    files = {
        f"settings/files-{reader}.txt": partial(files_listing, place) for reader, place in user_places(study).items()
    }
    return {**settings, **code, **files}


def renew_template() -> None:
    """Write the template of all these files. It is then newer than they are, and has a hash that no run has met.

    A file whose text changed takes the template as its input, any other as an `ancient` one.
    """
    TEMPLATE.parent.mkdir(parents=True, exist_ok=True)
    partial_file = TEMPLATE.with_name(f".partial-{os.getpid()}")
    partial_file.write_text(f"{{# {time.time_ns()} #}}{{{{ params.text }}}}", encoding="utf-8")
    partial_file.replace(TEMPLATE)


def holds(path: Path, text: str) -> bool:
    """Tell whether the file at ``path`` holds ``text``."""
    return path.is_file() and path.read_bytes() == text.encode()


def user_places(study: Study) -> dict[str, Path]:
    """Return the files and folders that the user brings, by the rule that reads them."""
    data, tasks = study.data, study.evaluation.every_task
    places = {
        "documents": data.files.path if data.source == "files" else None,
        "tokenizer": data.tokenizer.name if data.tokenizer.source == "path" else None,
        **{f"task-{name}": task.path for name, task in tasks.items() if is_users(task)},
    }
    return {reader: Path(place) for reader, place in places.items() if place}


def files_listing(place: Path) -> str:
    """List the files at ``place`` with sizes and times: Snakemake reads braces in an input's own name as syntax."""
    files = sorted(files_with_status(place))
    return _lines([str(path), status.st_size, status.st_mtime_ns] for path, status in files)


def code_listing(stage: str) -> str:
    """List the modules that the command of ``stage`` runs, with hashes."""
    files = sorted(source_files(STAGES[stage]))
    return _lines([str(path.relative_to(PACKAGE)), sha256(path)] for path in files)


def _lines(entries: Iterable[list[str | int]]) -> str:
    return "".join(f"{json.dumps(entry)}\n" for entry in entries)


def files_with_status(place: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield each file at ``place`` (a file or a folder) with its status, and enter each folder once, despite links."""
    if place.is_file():
        yield place, place.stat()
    seen: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(place, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        for path in (Path(folder) / name for name in names):
            if path.is_file():
                yield path, path.stat()


def check_results(results: Path, version: int) -> None:
    """Raise :class:`UserError` if ``results`` has the mark of another version, or trained cells and no mark.

    Another version can give a file another meaning, so that its numbers would be misread without an error.
    """
    mark = results / MARK
    marked = mark.read_text(encoding="utf-8", errors="replace").strip() if mark.exists() else "none"
    if marked != str(version) and (mark.exists() or any((results / "cells").glob("*/manifest.json"))):
        raise UserError(
            f"{results}/ was made with schema version {marked}, and this workflow reads and writes {version}; keep it"
            f" for the release that made it (mv {results} {results}-{marked}; mkdir {results}), and run again"
        )


def mark_results(results: Path, version: int) -> None:
    """Write ``version`` into the marking file of ``results``, once: a kill during a later start leaves no half file."""
    if not (results / MARK).exists():  # check_results has refused every other version
        write_text(results / MARK, f"{version}\n")
