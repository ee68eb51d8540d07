"""Sweeps and searches as tidy tables: what was tried, what it cost, and what came out best."""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..config import Cell, Point, Report, Selection, read_section
from ..config.cells import base_method
from ..config.experiments import PREVIOUS
from ..config.settings import SearchSettings, Sweeps, SweepSettings
from ..config.variants import with_search_result
from ..storage.contracts import read_cell_manifest
from ..storage.files import read_csv
from .differences import in_columns
from .effects import Effect, verdicts
from .losses import Losses, yardstick_losses
from .results import training_seconds

DOCUMENTS = ".documents.csv"  # ends the name of the file of a sweep's losses by document, as .runs.csv that of its runs
CAPPED = "loss_with_diverged"  # a column: the mean where cells that diverged have the unigram's loss
FED = "tokens_per_parameter"  # a column: trained tokens over all parameters
COSTS = ["minutes", "peak_MiB"]
CLOSE = "not clearly higher"  # a verdict


class Swept(NamedTuple):
    """The cells of a sweep, a row each (:func:`open_sweep`), their losses by document, and what these compare with.

    ``margin`` is that of verdicts, and ``yardsticks`` has the losses of counted n-grams, where they are known.
    """

    runs: pd.DataFrame
    losses: Losses
    margin: float
    yardsticks: Mapping[str, float] = MappingProxyType({})

    def capped(self, cells: Iterable[str]) -> float:
        """The mean loss of ``cells`` where one that diverged has the unigram's loss; NaN without yardsticks."""
        losses = [self.losses.of(name) for name in cells]
        return float(np.nan_to_num(losses, nan=self.yardsticks.get("unigram", np.nan)).mean())


def open_sweep(results: Path, sweep: str) -> Swept:
    """What the cells of ``sweep`` scored.

    ``runs`` has a row a cell: cell, size, method, seed, the keys that vary, loss (nats/token), diverged_at, trained
    tokens in all and a parameter, costs. The costs are those of the training: minutes, and peak_MiB of the first
    process (on a GPU, of the host's memory).
    """
    points = sweep_settings(results, sweep).cells
    cells = {name: read_section(Cell, results / "cells" / name / "config.yaml") for name in points}
    losses, rows = Losses.read(results / "cells", points), []
    for name, point in points.items():
        place, cell = results / "cells" / name, cells[name]
        manifest = read_cell_manifest(place)
        identity = {"cell": name, "size": cell.size_name, "method": base_method(cell), "seed": cell.seed}
        fed = {"tokens": manifest.tokens, FED: manifest.tokens / manifest.parameters}
        found = {"loss": losses.of(name), "diverged_at": manifest.diverged_at, **fed}
        costs = {"minutes": training_seconds(place) / 60, "peak_MiB": manifest.peak_memory_bytes / 2**20}
        rows.append({**identity, **columns(point), **found, **costs})
    runs = pd.DataFrame(rows).astype({"diverged_at": float})
    margin = read_section(Report, results / "settings" / "report.yaml").margin
    return Swept(runs, losses, margin, yardstick_losses(results, cells.values()))


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


def sweep_table(swept: Swept, keys: list[str], against: str | None) -> pd.DataFrame:
    """What a sweep shows in numbers: :func:`responses`, and beside them :func:`changes` where it compares methods."""
    table = responses(swept, keys)
    if against is None:
        return table
    beside = table.drop(columns=[*COSTS, "verdict"], errors="ignore").merge(
        changes(swept, against), on=["size", "method"], how="left", suffixes=("", "_paired")
    )
    return beside.fillna({"chance": "", "verdict": ""})  # of what the others are compared with


def at_budgets(swept: Swept) -> Swept:
    """``swept`` with the number of trained tokens in place of the size, for what compares methods at equal numbers."""
    runs = swept.runs.sort_values("tokens", kind="stable")
    return swept._replace(runs=runs.assign(size=runs.tokens.astype(str)))


def changes(swept: Swept, against: str) -> pd.DataFrame:
    """The loss of each method less the loss of what it is compared with, paired by seed: a row a size and method.

    ``against`` is a method, or "previous" for the method before each. Columns: size, method, compared_with, seeds that
    both ended, difference with its 95 % interval, the chance that the interval holds (:mod:`.effects`), p_holm over the
    table, and the verdict against the margin. A seed at which either diverged is left out.
    """
    rows: list[dict[str, object]] = []
    effects: list[Effect] = []
    for size, group in swept.runs.groupby("size", sort=False):
        cells = {str(method): rows.set_index("seed").cell for method, rows in group.groupby("method", sort=False)}
        for reference, method in _pairs(list(cells), against):
            effects.append(_paired(swept.losses, cells[method], cells[reference]))
            named = {"size": size, "method": method, "compared_with": reference, "seeds": effects[-1].seeds}
            rows.append(named | in_columns("difference", effects[-1]) | {"chance": effects[-1].chance})
    judged = verdicts(effects, swept.margin)
    return pd.DataFrame(rows).assign(p_holm=[p for _, p in judged], verdict=[verdict for verdict, _ in judged])


def _paired(losses: Losses, cells: pd.Series, others: pd.Series) -> Effect:
    """The difference in loss of ``cells`` less ``others``, both by seed, at the seeds that both have."""
    both = pd.concat([cells, others], axis=1, join="inner")
    return losses.difference(both.itertuples(index=False, name=None))


def _pairs(methods: list[str], against: str) -> Iterable[tuple[str, str]]:
    if against == PREVIOUS:
        return itertools.pairwise(methods)
    return ((against, method) for method in methods if method != against)


def responses(swept: Swept, keys: list[str]) -> pd.DataFrame:
    """A row a size, method and point: tokens a parameter, seeds, mean loss with its 95 % interval, and what follows.

    That is the mean with the unigram's loss for diverged runs, their number, costs, and a verdict.

    Where keys vary, the ``verdict`` of a size and method is "lowest" at the point of the lowest mean, if no seed of it
    diverged. It is "best" where, paired by seed and document, every other point's loss is clearly higher: the 95 %
    interval of the difference leaves out 0. Other points are called "not clearly higher". Where the lowest point lies
    at the end of a key's tried numbers, a lower one may lie beyond: its verdict is "lowest, at the edge of KEY". A
    method with one setting has no verdict.
    """
    rows, cells = [], []
    for place, group in swept.runs.groupby(["size", "method", *keys], sort=False, dropna=False):
        fed = {FED: group[FED].mean()} if FED in group else {}
        spread = fed | {"seeds": len(group)} | in_columns("loss", swept.losses.mean(group.cell))
        spread |= {CAPPED: swept.capped(group.cell)}
        named = dict(zip(["size", "method", *keys], place, strict=True))
        costs = {name: group[name].mean() for name in COSTS if name in group}
        rows.append({**named, **spread, "diverged": int(group.diverged_at.notna().sum()), **costs, "verdict": ""})
        cells.append(group.set_index("seed").cell)
    table = pd.DataFrame(rows)
    if not table[CAPPED][table.diverged > 0].notna().any():
        table = table.drop(columns=CAPPED)
    for _, group in table.groupby(["size", "method"], sort=False):
        if keys and len(group) > 1 and group.loss.notna().any():
            table.loc[group.index, "verdict"] = _verdicts(group, keys, cells, swept.losses)
    return table


def _verdicts(group: pd.DataFrame, keys: list[str], cells: list[pd.Series], losses: Losses) -> pd.Series:
    """The verdict on each point of ``group``. ``cells`` holds the cells of each row by seed."""
    lowest = int(group.loss.idxmin())
    others = [place for place in group.index if place != lowest and np.isfinite(group.loss[place])]
    low = {place: _paired(losses, cells[place], cells[lowest]).interval[0] for place in others}
    close = [place for place in others if low[place] <= 0]
    found = pd.Series("", index=group.index)
    found[close] = CLOSE
    open_ended = open_ends(group, group.loc[lowest], keys)
    alone = "lowest" if close or len(cells[lowest]) == 1 else "best"
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

    Columns: size, method, the keys that vary, seeds (how many it trained with to the last rung that it reached), loss
    (nats/token there, the mean over these seeds; missing if it diverged with any), steps (optimizer steps that it
    trained with all seeds), outcome, dropped_after (the rung, in steps; missing for the one chosen), edge (of the one
    chosen, the keys of which it has the lowest or the highest number tried: a better one may lie beyond).
    """
    return pd.concat([_search(folder) for folder in _searches(results)], ignore_index=True)


def _searches(results: Path) -> list[Path]:
    """The folders of the searches, in the order of the study's sizes and methods."""
    study = read_section(Selection, results / "settings" / "study.yaml")
    folders = [results / "tuning" / f"{size}-{method}" for size in study.sizes for method in study.methods]
    return [folder for folder in folders if (folder / "settings.yaml").exists()]


def _search(folder: Path) -> pd.DataFrame:
    search = read_section(SearchSettings, folder / "settings.yaml")
    rungs = [read_csv(folder / f"rung-{number}.csv") for number in range(len(search.rungs))]
    rows = []
    for name, point in search.candidates.items():
        left = [rung[rung.candidate == name] for rung in rungs]
        reached = max(number for number, trained in enumerate(left) if len(trained))
        last = left[reached]
        chosen = reached == len(rungs) - 1 and last.promoted.all()
        outcome = "chosen" if chosen else "diverged" if last.diverged.any() else "dropped"
        rows.append(
            {
                **{"size": search.size, "method": search.method, **columns(point), "seeds": len(last)},
                **{"loss": last.mean_loss.iloc[0], "steps": last.trained.sum(), "outcome": outcome},
                "dropped_after": np.nan if chosen else search.rungs[reached],
                "reached": reached,
            }
        )
    table = pd.DataFrame(rows).sort_values(["reached", "loss"], ascending=[False, True], kind="stable")
    keys = list(dict.fromkeys(key for point in search.candidates.values() for key in point))
    edges = [", ".join(open_ends(table, row, keys)) if row.outcome == "chosen" else "" for _, row in table.iterrows()]
    return table.assign(edge=edges).drop(columns="reached")


def search_of(results: Path, cell: Cell) -> Path | None:
    """The folder of the search that chose the settings of ``cell``; None if none did."""
    folder = results / "tuning" / f"{cell.size_name}-{cell.method_name}"
    base = results / f"tuning/base/{cell.name}.yaml"
    if not (base.exists() and (folder / "settings.yaml").exists()):
        return None
    search = read_section(SearchSettings, folder / "settings.yaml")
    best = str(read_csv(folder / f"rung-{len(search.rungs) - 1}.csv").candidate.iloc[0])
    chose = with_search_result(read_section(Cell, base), search.candidates[best]) == cell
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
    """The loss of every candidate with every seed at every rung that it reached.

    Columns: candidate, seed, trained (optimizer steps), loss (nats/token), diverged, mean_loss (over the seeds of the
    rung), promoted, size, method, step (the rung), outcome.
    """
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
