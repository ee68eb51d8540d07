"""Tell Snakemake, by file times alone, that a setting, a user's file or code changed.

Snakemake's record of parameters (its `params` trigger) misses a change under `--rerun-triggers mtime` or without the
folder `.snakemake`. So every parse of the workflow stages each settings file under `.snakemake`: one that must change
is newer than the file in its place, any other is as old. A rule copies a newer one to its place.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..config import Section, Study
from ..config.evaluated import is_users
from ..config.settings import as_yaml
from ..storage.files import sha256

Entry = list[str | int]  # one line of a listing: a file's path, then its size and time, or its hash
STAGED = Path(".snakemake") / "relora_study"  # a dry run writes nowhere else
IN_PLACE = "# in its place"  # the first line of a staged file that is up to date
NEWER_NS = 1_000_000  # nanoseconds by which a staged file is newer than the file it replaces


def stage(study: Study, files: Mapping[str, Section], results: Path) -> None:
    """Stage the settings ``files``, by path in ``results``, and list the user files; unchanged ones stay current."""
    for name, settings in files.items():
        _stage_settings(settings, staged(name), results / name)
    for reader, place in user_places(study).items():
        stage_listing(place, staged_listing(reader))


def staged(file: str) -> Path:
    """Return where the settings file ``file``, a path in `results/`, is staged; ``file`` can hold wildcards."""
    return STAGED / file


def user_places(study: Study) -> dict[str, Path]:
    """Return the files and folders that the user brings, by the rule that reads them."""
    data, tasks = study.data, study.evaluation.every_task
    places = {
        "documents": data.files.path if data.source == "files" else None,
        "tokenizer": data.tokenizer.name if data.tokenizer.source == "path" else None,
        **{f"task-{name}": task.path for name, task in tasks.items() if is_users(task)},
    }
    return {reader: Path(place) for reader, place in places.items() if place}


def staged_listing(reader: str) -> Path:
    """Return where the user's files that the rule ``reader`` reads are listed."""
    return STAGED / "files" / f"{reader}.txt"


def _stage_settings(settings: Section, staged: Path, place: Path) -> None:
    """Stage ``settings`` for ``place``: newer than ``place`` if the two differ, else of equal age.

    Snakemake ignores a newer input whose hash equals the hash of the last run, even if ``place`` has changed since. So
    the first line is a comment that differs each time a staged file must replace ``place``.
    """
    wanted, current = as_yaml(settings), _text(place)
    head, _, body = _text(staged).partition("\n")
    if current == wanted:
        if (head, body) != (IN_PLACE, wanted):
            _write(staged, f"{IN_PLACE}\n{wanted}")
        _set_time(staged, place.stat().st_mtime_ns)
        return
    replaces = f"# in the stead of {hashlib.sha256(current.encode()).hexdigest()}, "
    if not (head.startswith(replaces) and body == wanted and _is_newer(staged, place)):
        _write(staged, f"{replaces}{time.time_ns()}\n{wanted}")
    if not _is_newer(staged, place):  # the clock is behind the file's time
        _set_time(staged, place.stat().st_mtime_ns + NEWER_NS)


def _write(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in one piece, without waiting for the disk: the next parse repairs a spoilt file."""
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _text(path: Path) -> str:
    """Return the content of ``path``, or an empty text if there is no file."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _is_newer(path: Path, other: Path) -> bool:
    return not other.exists() or path.stat().st_mtime_ns > other.stat().st_mtime_ns


def _set_time(path: Path, nanoseconds: int) -> None:
    if path.stat().st_mtime_ns != nanoseconds:
        os.utime(path, ns=(nanoseconds, nanoseconds))


def stage_listing(place: Path, listing: Path) -> None:
    """Write ``listing``, the files at ``place`` with sizes and times, which a rule takes as its input instead of them.

    Users choose the files' names, and Snakemake reads braces and angle brackets in an input's name as syntax.
    """
    files = sorted(files_with_status(place))
    folders = {path.parent for path, _ in files} if place.is_dir() else set()
    times = [status.st_mtime_ns for _, status in files] + [folder.stat().st_mtime_ns for folder in folders]
    entries: list[Entry] = [[str(path), status.st_size, status.st_mtime_ns] for path, status in files]
    _stage_entries(entries, times, listing)


def stage_code(files: Iterable[Path], package: Path, listing: Path) -> None:
    """Write ``listing``, the ``files`` of ``package`` with hashes, which a job takes as one input instead of dozens."""
    sources = sorted(files)
    times = [path.stat().st_mtime_ns for path in sources]
    _stage_entries([[str(path.relative_to(package)), sha256(path)] for path in sources], times, listing)


def _stage_entries(entries: list[Entry], times: list[int], listing: Path) -> None:
    """Write ``entries``, one a line.

    A first listing is as old as the newest of ``times``, so that a lost `.snakemake` reruns nothing. A changed listing
    is newer than every result.
    """
    text, before = "".join(f"{json.dumps(entry)}\n" for entry in entries), listing.exists()
    if not before or _text(listing) != text:
        _write(listing, text)
    if not before and times:
        _set_time(listing, max(times))


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
