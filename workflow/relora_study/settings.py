"""The settings files: what each stage's commands read, and how Snakemake learns that one changed.

Snakemake's own notes (its `params` trigger) forget a change under `--rerun-triggers mtime` and where `.snakemake` is
missing. So every parse of the workflow compares each settings file with what the configuration asks for, and stages
what must be written under `.snakemake`, newer than the file it replaces. A rule copies it to its place.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from .config import Cell, Data, Dynamics, Evaluation, PositiveInt, Section, Study
from .files import write_text

STAGED = Path(".snakemake") / "relora_study"  # a dry run writes nowhere else
NEWER_NS = 1_000_000  # nanoseconds by which a staged file is newer than the file it replaces


class TokenSettings(Data):
    """What turns documents or shards into token ids: the data section, and what the model says of ids."""

    vocab_size: PositiveInt
    context_length: PositiveInt


class MeasurementSettings(Evaluation):
    """What a cell is evaluated on: the evaluation section, and how much of the held-out documents and ids is read."""

    held_out_tokens_per_domain: PositiveInt
    batch_sequences: PositiveInt


class DynamicsSettings(Dynamics):
    """How spectra are taken: the dynamics section, and the steps over which all methods are compared."""

    cycle_steps: PositiveInt


def stage_settings(study: Study) -> dict[str, Section]:
    """What `results/settings/NAME.yaml` holds, by NAME."""
    data, model = study.data, study.model
    sections = {name: getattr(study, name) for name in ("study", "data", "evaluation", "report", "runtime")}
    return sections | {
        "tokens": TokenSettings(**data.model_dump(), vocab_size=model.vocab_size, context_length=model.context_length),
        "measurement": MeasurementSettings(
            **study.evaluation.model_dump(),
            held_out_tokens_per_domain=data.held_out_tokens_per_domain,
            batch_sequences=study.dynamics.batch_sequences,
        ),
        "dynamics": DynamicsSettings(**study.dynamics.model_dump(), cycle_steps=study.cycle_steps),
        "whole": study,
    }


def stage(study: Study, cells: dict[str, Cell], results: Path) -> None:
    """Stage every settings file of ``study`` and list the user's own files; what did not change stays up to date."""
    for name, settings in stage_settings(study).items():
        _stage_settings(settings, staged_settings(name), results / "settings" / f"{name}.yaml")
    for name, cell in cells.items():
        _stage_settings(cell, staged_cell(name), results / "cells" / name / "config.yaml")
    for reader, place in users_places(study).items():
        stage_listing(place, staged_listing(reader))


def staged_settings(name: str) -> Path:
    """Where the settings called ``name``, or a wildcard of that name, are staged."""
    return STAGED / "settings" / f"{name}.yaml"


def staged_cell(name: str) -> Path:
    """Where the settings of the cell called ``name``, or a wildcard of that name, are staged."""
    return STAGED / "cells" / f"{name}.yaml"


def users_places(study: Study) -> dict[str, Path]:
    """The files and folders of the user's own, by the rule that reads them."""
    data, evaluation = study.data, study.evaluation
    places = {
        "documents": data.files.path if data.source == "files" else None,
        "tokenizer": data.tokenizer.name if data.tokenizer.source == "path" else None,
        "minimal_pairs": evaluation.minimal_pairs.path if evaluation.minimal_pairs.source == "path" else None,
        "texts": evaluation.perplexity.path if evaluation.perplexity.source == "path" else None,
    }
    return {reader: Path(place) for reader, place in places.items() if place}


def staged_listing(reader: str) -> Path:
    """Where the user's own files that the rule ``reader`` reads are listed."""
    return STAGED / "files" / f"{reader}.txt"


def as_yaml(settings: Section) -> str:
    """The text of a settings file."""
    return yaml.dump(settings.model_dump(), Dumper=DUMPER, sort_keys=False)


DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml's: a study of 1,000 cells is planned in seconds


def _stage_settings(settings: Section, staged: Path, place: Path) -> None:
    """Stage ``settings`` newer than ``place`` where it holds others, and as old as ``place`` where it holds these.

    The first line of a staged file is a comment with the time: Snakemake takes a newer input for unchanged when its
    hash is the one of the last run, which says nothing of what ``place`` holds by now.
    """
    wanted, current = as_yaml(settings), _text(place)
    if _text(staged).partition("\n")[2] != wanted or (current != wanted and not _is_newer(staged, place)):
        write_text(staged, f"# staged at {time.time_ns()}\n{wanted}")
    if current == wanted:
        _set_time(staged, place.stat().st_mtime_ns)
    elif place.exists() and not _is_newer(staged, place):  # the clock is behind the file
        _set_time(staged, place.stat().st_mtime_ns + NEWER_NS)


def _text(path: Path) -> str:
    """The content of ``path``; empty where there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _is_newer(path: Path, other: Path) -> bool:
    return not other.exists() or path.stat().st_mtime_ns > other.stat().st_mtime_ns


def _set_time(path: Path, nanoseconds: int) -> None:
    if path.stat().st_mtime_ns != nanoseconds:
        os.utime(path, ns=(nanoseconds, nanoseconds))


def stage_listing(place: Path, listing: Path) -> None:
    """List the user's own files at ``place`` in ``listing``, with sizes and times: a rule's input in their stead.

    Their names are the user's, and Snakemake reads braces and angle brackets in an input's name as its own syntax.
    A listing that is new is as old as the newest file or folder, and one that changed is of now.
    """
    found = sorted(own_files(place))
    lines = [json.dumps([str(path), status.st_size, status.st_mtime_ns]) for path, status in found]
    text, before = "".join(f"{line}\n" for line in lines), listing.exists()
    if not before or _text(listing) != text:
        write_text(listing, text)
    if not before and found:
        folders = {path.parent for path, _ in found} if place.is_dir() else set()
        times = [status.st_mtime_ns for _, status in found] + [folder.stat().st_mtime_ns for folder in folders]
        _set_time(listing, max(times))


def own_files(place: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file at ``place``, a file or a folder, with its status; each folder once, whatever links lead to it."""
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
