"""What a run computed, from the files that its jobs left: the trainings shown, those discarded, and readings."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from ..config.settings import Experiments
from .results import Runs, training_seconds

JOBS = "benchmarks/jobs"  # in results/: Snakemake's measures of each job, of the last time that it ran
COLUMNS = ["what", "runs", "untimed", "minutes", "files"]

Row = tuple[str, int, int, float, str]


def spent(runs: Runs, experiments: Experiments) -> pd.DataFrame:
    """The trainings and readings of a study, a row a kind.

    Columns: what; runs, and how many of them are untimed, because no file has their time; minutes, summed over the
    others, which may have run side by side; files. Discarded trainings have rows of their own.
    """
    rows = [*_trainings(runs, experiments), *_readings(runs, experiments)]
    return pd.DataFrame([row for row in rows if row[1]], columns=COLUMNS)


def _trainings(runs: Runs, experiments: Experiments) -> Iterator[Row]:
    results = runs.folder.parent
    ended = [runs.folder / name for name in runs.cells if name not in runs.diverged]
    diverged = [runs.folder / name for name in runs.diverged]
    swept = [runs.folder / name for name in experiments.beside(runs.cells)]
    tried = list(_searched(results, experiments))
    every = [*ended, *diverged, *swept, *tried]
    aside = [place.parent for folder in every for place in sorted(folder.glob("superseded-*/timing.csv"))]
    yield _trained("training: cells of the study", ended, "cells/*/timing.csv")
    yield _trained("training: cells that diverged", diverged, "cells/*/timing.csv")
    yield _trained("training: cells of sweeps", swept, "cells/*/timing.csv")
    yield _trained("training: candidates of the search", tried, "tuning/*/*/timing.csv")
    yield _trained("training: set aside, of other settings or data", aside, "*/*/superseded-*/timing.csv")


def _searched(results: Path, experiments: Experiments) -> Iterator[Path]:
    """Yield the folders of candidates: each with the first seed, and with further ones those that trained."""
    for name, (settings, cells) in experiments.searches.items():
        first, places = settings.cells_at(0), {cell: results / "tuning" / name / cell for cell in cells}
        yield from (place for cell, place in places.items() if cell in first or (place / "timing.csv").exists())


def _readings(runs: Runs, experiments: Experiments) -> Iterator[Row]:
    for what, job, cells in (
        ("evaluation", "evaluate", runs.cells),
        ("held-out losses", "held_out", {**runs.cells, **experiments.cells}),
        ("dynamics", "dynamics", runs.cells),
    ):
        places = [runs.folder.parent / JOBS / f"{job}-{name}.tsv" for name in cells]
        minutes = [_job_minutes(place) for place in places if place.exists()]
        yield what, len(places), len(places) - len(minutes), sum(minutes), f"{JOBS}/{job}-*.tsv"


def _trained(what: str, folders: Iterable[Path], files: str) -> Row:
    found = [training_seconds(folder) if (folder / "timing.csv").exists() else None for folder in folders]
    timed = [seconds for seconds in found if seconds is not None]
    return what, len(found), len(found) - len(timed), sum(timed) / 60, files


def _job_minutes(place: Path) -> float:
    return float(pd.read_csv(place, sep="\t").s.sum()) / 60
