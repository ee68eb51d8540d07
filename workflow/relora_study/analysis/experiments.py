"""Sweeps and searches as tidy tables: what was tried, what it cost, and what came out best."""

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from ..config import Cell, Point, Selection, read_section
from ..config.cells import base_method
from ..config.experiments import PREVIOUS
from ..config.settings import SearchSettings, Sweeps, SweepSettings
from ..config.variants import settled
from ..storage.cell_manifest import read_cell_manifest
from ..storage.contracts import read_contract
from ..storage.files import read_csv
from ..storage.rung import Rung
from .differences import holm, paired_difference
from .intervals import t_interval
from .training_time import training_seconds

COSTS = ["minutes", "peak_MiB"]
CLOSE = "not clearly higher"  # a verdict


def sweep_runs(results: Path, sweep: str) -> pd.DataFrame:
    """A row a cell of ``sweep``: cell, size, method, seed, the keys that vary, loss (nats/token), diverged_at, costs.

    The costs are those of the training: minutes, and peak_MiB of the first process (on a GPU, of the host's memory).
    """
    settings = sweep_settings(results, sweep)
    rows = []
    for name, point in settings.cells.items():
        cell = read_section(Cell, results / "cells" / name / "config.yaml")
        score = read_csv(results / "cells" / name / "score.csv").iloc[0]
        identity = {"cell": name, "size": cell.size_name, "method": base_method(cell), "seed": cell.seed}
        found = {"loss": score.loss, "diverged_at": score.diverged_at}
        rows.append({**identity, **columns(point), **found, **_costs(results / "cells" / name)})
    return pd.DataFrame(rows)


def _costs(cell_dir: Path) -> dict[str, float]:
    minutes = training_seconds(cell_dir) / 60
    return {"minutes": minutes, "peak_MiB": read_cell_manifest(cell_dir).peak_memory_bytes / 2**20}


def columns(point: Point) -> Point:
    """``point`` as columns of a table: a list, such as betas, becomes text, which rows can be grouped by; so does null.

    A missing value then says that a key does nothing in a method.
    """
    words = {key: ", ".join(map(str, value)) for key, value in point.items() if isinstance(value, list)}
    return point | words | {key: "none" for key, value in point.items() if value is None}


def method_cells(results: Path, runs: pd.DataFrame) -> dict[str, Cell]:
    """A cell of each method of a sweep's ``runs``, by the method's name."""
    first = runs.drop_duplicates("method").set_index("method").cell
    return {str(method): read_section(Cell, results / "cells" / name / "config.yaml") for method, name in first.items()}


def sweep_settings(results: Path, sweep: str) -> SweepSettings:
    """What varies in ``sweep``, what its cells change, and what its methods are compared with."""
    return read_section(Sweeps, results / "settings" / "sweeps.yaml").sweeps[sweep]


def sweep_table(runs: pd.DataFrame, keys: list[str], against: str | None) -> pd.DataFrame:
    """What a sweep shows in numbers: :func:`responses`, and beside them :func:`changes` where it compares methods."""
    table = responses(runs, keys)
    if against is None:
        return table
    return table.drop(columns=COSTS, errors="ignore").merge(
        changes(runs, against), on=["size", "method"], how="left", suffixes=("", "_paired")
    )


def changes(runs: pd.DataFrame, against: str) -> pd.DataFrame:
    """The loss of each method less the loss of what it is compared with, paired by seed: a row a size and method.

    ``against`` is a method, or "previous" for the method before each. Columns: size, method, compared_with, seeds,
    difference with Student's 95 % interval, p (sign-flip test) and p_holm (Holm's correction over the methods of a
    size). A seed at which either diverged is left out.
    """
    rows: list[dict[str, object]] = []
    for size, group in runs.groupby("size", sort=False):
        losses = {str(method): rows.set_index("seed").loss for method, rows in group.groupby("method", sort=False)}
        for reference, method in _pairs(list(losses), against):
            found = paired_difference(losses[method], losses[reference])
            spread = {"difference": found.mean, "difference_low": found.low, "difference_high": found.high}
            named = {"size": size, "method": method, "compared_with": reference}
            rows.append(named | {"seeds": found.seeds} | spread | {"p": found.p})
    table = pd.DataFrame(rows)
    return table.assign(p_holm=table.groupby("size", sort=False).p.transform(holm))


def _pairs(methods: list[str], against: str) -> Iterable[tuple[str, str]]:
    if against == PREVIOUS:
        return itertools.pairwise(methods)
    return ((against, method) for method in methods if method != against)


def responses(runs: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """A row a size, method and point: seeds, mean loss with Student's 95 % interval, diverged runs, costs, a verdict.

    Where keys vary, the ``verdict`` of a size and method is "lowest" at the point of the lowest mean, if no seed of it
    diverged. It is "best" where, paired by seed, every other point's loss is clearly higher: Student's 95 % interval of
    the difference leaves out 0. Other points are called "not clearly higher". Where the lowest point lies at the end of
    a key's tried numbers, a lower one may lie beyond: its verdict then is "lowest, at the edge of KEY". A method with
    one setting has no verdict.
    """
    rows, seeds = [], []
    for place, group in runs.groupby(["size", "method", *keys], sort=False, dropna=False):
        low, high = t_interval(group.loss.to_numpy())
        spread = {"seeds": len(group), "loss": group.loss.mean(skipna=False), "loss_low": low, "loss_high": high}
        named = dict(zip(["size", "method", *keys], place, strict=True))
        costs = {name: group[name].mean() for name in COSTS if name in group}
        rows.append({**named, **spread, "diverged": int(group.diverged_at.notna().sum()), **costs, "verdict": ""})
        seeds.append(group.set_index("seed").loss)
    table = pd.DataFrame(rows)
    for _, group in table.groupby(["size", "method"], sort=False):
        if keys and len(group) > 1 and group.loss.notna().any():
            table.loc[group.index, "verdict"] = _verdicts(group, keys, seeds)
    return table


def _verdicts(group: pd.DataFrame, keys: list[str], seeds: list[pd.Series]) -> pd.Series:
    """The verdict on each point of ``group``. ``seeds`` holds the losses of each row by seed."""
    lowest = int(group.loss.idxmin())
    others = [place for place in group.index if place != lowest and seeds[place].notna().all()]
    low = {place: paired_difference(seeds[place], seeds[lowest]).low for place in others}
    close = [place for place in others if low[place] <= 0]  # one seed has no interval, and shows nothing
    found = pd.Series("", index=group.index)
    found[close] = CLOSE
    open_ended = open_ends(group, group.loc[lowest], keys)
    alone = "lowest" if close or len(seeds[lowest]) == 1 else "best"
    found[lowest] = f"lowest, at the edge of {', '.join(open_ended)}" if open_ended else alone
    return found


def open_ends(tried: pd.DataFrame, best: pd.Series, keys: list[str]) -> list[str]:
    """The ``keys`` of which ``best`` has the lowest or the highest number in ``tried``: a better one may lie beyond."""
    edges = [key for key in keys if is_numeric(tried[key]) and best[key] in (tried[key].min(), tried[key].max())]
    return [key for key in edges if tried[key].nunique() > 1]


def is_numeric(values: pd.Series) -> bool:
    """Whether a key's values are numbers, which have an order and an edge."""
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def search_table(results: Path) -> pd.DataFrame:
    """Every candidate of every search, the best first.

    Columns: size, method, candidate, loss (nats/token, at the last rung that it reached), steps (optimizer steps that
    it trained), dropped_after (the rung, in steps; missing for the one chosen), outcome.
    """
    return pd.concat([_search(folder) for folder in _searches(results)], ignore_index=True)


def _searches(results: Path) -> list[Path]:
    """The folders of the searches, in the order of the study's sizes and methods."""
    study = read_section(Selection, results / "settings" / "study.yaml")
    folders = [results / "tuning" / f"{size}-{method}" for size in study.sizes for method in study.methods]
    return [folder for folder in folders if (folder / "settings.yaml").exists()]


def _search(folder: Path) -> pd.DataFrame:
    search = read_section(SearchSettings, folder / "settings.yaml")
    rungs = [read_csv(folder / f"rung-{number}.csv").set_index("candidate") for number in range(len(search.rungs))]
    rows = []
    for name, point in search.candidates.items():
        reached = [number for number, rung in enumerate(rungs) if name in rung.index]
        last = rungs[reached[-1]].loc[name]
        chosen = reached[-1] == len(rungs) - 1 and last.promoted == 1
        record = read_contract(Rung, folder / name / f"rung-{reached[-1]}.json", f"{folder / name} lacks its rungs")
        outcome = "chosen" if chosen else "diverged" if last.diverged else "dropped"
        rows.append(
            {
                **{"size": search.size, "method": search.method, **columns(point)},
                **{"loss": last.loss, "steps": record.step, "outcome": outcome},
                "dropped_after": np.nan if chosen else search.rungs[reached[-1]],
            }
        )
    table = pd.DataFrame(rows)
    return table.sort_values(["steps", "loss"], ascending=[False, True], kind="stable")


def search_of(results: Path, cell: Cell) -> Path | None:
    """The folder of the search that chose the settings of ``cell``; None if none did."""
    folder = results / "tuning" / f"{cell.size_name}-{cell.method_name}"
    base = results / f"tuning/base/{cell.name}.yaml"
    if not (base.exists() and (folder / "settings.yaml").exists()):
        return None
    search = read_section(SearchSettings, folder / "settings.yaml")
    best = str(read_csv(folder / f"rung-{len(search.rungs) - 1}.csv").candidate.iloc[0])
    chose = settled(read_section(Cell, base), search.candidates[best]) == cell
    return folder if chose else None  # else left by a study that searched


def search_minutes(results: Path, cells: Iterable[Cell]) -> dict[str, float]:
    """The minutes that all candidates trained in the search that chose a cell's settings, by cell; 0 if none did.

    Cells of several seeds share a search, whose files are read once.
    """
    chosen = {cell.name: search_of(results, cell) for cell in cells}
    minutes = {folder: candidates_minutes(folder) for folder in set(chosen.values()) if folder}
    return {name: minutes[folder] if folder else 0.0 for name, folder in chosen.items()}


def candidates_minutes(search: Path) -> float:
    """The minutes that all candidates of ``search``, a folder, trained."""
    return sum(training_seconds(place.parent) for place in search.glob("*/timing.csv")) / 60


def search_rungs(results: Path) -> pd.DataFrame:
    """The loss of every candidate at every rung that it reached: size, method, candidate, step, loss, outcome."""
    parts = []
    for folder in _searches(results):
        search, reached = read_section(SearchSettings, folder / "settings.yaml"), []
        for number, step in enumerate(search.rungs):
            rung = read_csv(folder / f"rung-{number}.csv")
            last = number == len(search.rungs) - 1
            outcome = np.where(last & (rung.promoted == 1), "chosen", "dropped")
            reached.append(rung.assign(size=search.size, method=search.method, step=step, outcome=outcome))
        parts += reached
    return pd.concat(parts, ignore_index=True)
