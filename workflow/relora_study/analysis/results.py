"""Our runs as a source: one reader for every table of the cells, which reads each file once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.typing import SeriesGroupBy

from ..config import Cell, Evaluation, Method, Report, Selection, read_section
from ..config.benchmark_names import BLIMP, PALOMA, suite_name, texts_name
from ..config.measuring import HEADLINES, MARGIN
from ..errors import UserError
from ..storage.files import read_yaml
from .losses import Losses, yardstick_losses

LAST_STEPS = 20  # the final training loss is a mean over these: one batch is noisy
TEXT_COLUMNS = ("suite", "item", "metric", "component", "quantity", "reason")  # may hold any word, "NA" and "null" too
LATER_COLUMNS = {"log.csv": "update_norm"}  # an earlier version did not write these


@dataclass(frozen=True)
class Runs:
    """The cells of a study, in the study's order, and the folder that holds them, a source (analysis.source)."""

    folder: Path
    cells: Mapping[str, Cell]
    suite: str = BLIMP
    texts: str = PALOMA
    baseline: str | None = None
    margin: float = MARGIN
    tasks: Mapping[str, str] = field(default_factory=dict)  # the study's own tasks, by name: their kinds
    _read_already: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def sizes(self) -> list[str]:
        """The sizes in the study's order."""
        return list(dict.fromkeys(cell.size_name for cell in self.cells.values()))

    @property
    def methods(self) -> list[str]:
        """The methods in the study's order."""
        return list(dict.fromkeys(cell.method_name for cell in self.cells.values()))

    @property
    def seeds(self) -> list[int]:
        """The seeds, the lowest first."""
        return sorted({cell.seed for cell in self.cells.values()})

    @property
    def methods_by_name(self) -> dict[str, Method]:
        """The settings of each method, as a cell of it has them."""
        return {cell.method_name: cell.method for cell in self.cells.values()}

    @property
    def by_size_and_method(self) -> dict[tuple[str, str], list[Cell]]:
        """The cells of each size and method, one a seed, in the study's order."""
        groups: dict[tuple[str, str], list[Cell]] = {}
        for cell in self.cells.values():
            groups.setdefault((cell.size_name, cell.method_name), []).append(cell)
        return groups

    def table(self, file: str) -> pd.DataFrame:
        """The rows of ``file`` (log.csv, timing.csv, ...) of all cells, with cell, size, method, seed."""
        if file not in self._read_already:
            parts = [self._read(cell, file) for cell in self.cells.values()]
            self._read_already[file] = pd.concat(parts, ignore_index=True)
        rows: pd.DataFrame = self._read_already[file]
        return rows

    @property
    def full_rank_method(self) -> str | None:
        """The full-rank method that others are compared with: the baseline of the study, else the first, if any."""
        whole = (cell.method_name for cell in self.cells.values() if cell.method.is_full_rank)
        return self.baseline or next(whole, None)

    def full_rank_of(self, cell: Cell) -> Cell | None:
        """The full-rank cell of equal size and seed, where ``cell`` trains otherwise; None without such a cell."""
        return None if cell.method.is_full_rank else self.reference_of(cell)

    def reference_of(self, cell: Cell) -> Cell | None:
        """The cell of equal size and seed that ``cell`` is compared with; None for that cell, and without one."""
        wanted = (cell.size_name, self.full_rank_method, cell.seed)
        found = next((c for c in self.cells.values() if (c.size_name, c.method_name, c.seed) == wanted), None)
        return None if found is cell else found

    @cached_property
    def losses(self) -> Losses:
        """The held-out losses of all cells, document by document."""
        return Losses.read(self.folder, self.cells)

    @cached_property
    def yardsticks(self) -> dict[str, float]:
        """The losses of n-gram models counted on what the cells read, by name."""
        return yardstick_losses(self.folder.parent, self.cells.values())

    @property
    def measures(self) -> dict[str, tuple[str, str, str]]:
        """What is read of each task at the last step: suite, item and metric of evaluation.csv, one number a cell."""
        built_in = {"perplexity": ("perplexity", "texts"), "accuracy": ("minimal_pairs", "minimal_pairs")}
        named = built_in | {name: (name, kind) for name, kind in self.tasks.items()}
        return {measure: (task, *HEADLINES[kind]) for measure, (task, kind) in named.items()}

    @property
    def diverged(self) -> Mapping[str, int]:
        """The cells that diverged, each with the step at which a loss or gradient was not finite."""
        steps = {name: self.manifest(cell).get("diverged_at") for name, cell in self.cells.items()}
        return {name: int(step) for name, step in steps.items() if step is not None}

    def peak_rates(self) -> str:
        """The peak learning rates of the cells, each once."""
        return " and ".join(f"{rate:g}" for rate in dict.fromkeys(c.train.learning_rate for c in self.cells.values()))

    def manifest(self, cell: Cell) -> dict[str, Any]:
        """The manifest that ``cell`` wrote when its run ended."""
        place = self.folder / cell.name / "manifest.json"
        if str(place) not in self._read_already:
            self._read_already[str(place)] = dict(read_yaml(place))
        manifest: dict[str, Any] = self._read_already[str(place)]
        return manifest

    @property
    def manifests(self) -> list[dict[str, Any]]:
        """The manifests of all cells."""
        return [self.manifest(cell) for cell in self.cells.values()]

    def whole(self, cells: Iterable[Cell]) -> list[Cell]:
        """Those of ``cells`` that did not diverge."""
        diverged = self.diverged
        return [cell for cell in cells if cell.name not in diverged]

    def tokens_per_parameter(self, cell: Cell) -> float:
        """How many tokens trained each parameter of ``cell``, which they all count."""
        manifest = self.manifest(cell)
        return float(manifest["tokens"] / manifest["parameters"])

    def labelled(self) -> pd.DataFrame:
        """Readings under the paper's labels: a ReLoRA reading is taken ``checkpoint_offset`` steps after its label."""
        rows = self.table("dynamics.csv")
        recipes = {name: (cell.method.reset_period, cell.train) for name, cell in self.cells.items()}
        every = rows.cell.map({name: period or train.checkpoint_every for name, (period, train) in recipes.items()})
        offset = rows.cell.map({name: train.checkpoint_offset * bool(p) for name, (p, train) in recipes.items()})
        start = rows.step == 0
        read = start | ((rows.step % every == offset) & (rows.step > offset))
        return rows.assign(step=rows.step.where(start, rows.step - offset))[read]

    def regular(self) -> pd.DataFrame:
        """Rows of dynamics.csv at the regular checkpoints."""
        rows = self.table("dynamics.csv")
        every = rows.cell.map({name: cell.train.checkpoint_every for name, cell in self.cells.items()})
        return rows[rows.step % every == 0]

    @property
    def hour_unit(self) -> str:
        """GPU-hours where a GPU trained, else CPU core-hours."""
        return device_unit(self.manifests)

    def training_seconds(self, cell: Cell) -> float:
        """The training time of ``cell`` in seconds, over all its jobs."""
        return training_seconds(self.folder / cell.name)

    def hours(self, size: str, method: str, steps: pd.Series) -> pd.Series:
        """Device-hours of training at ``steps``, a mean over seeds."""
        if "hours" not in self._read_already:
            self._read_already["hours"] = self._hours()
        return steps.map(self._read_already["hours"][size, method])

    def _hours(self) -> dict[tuple[str, str], pd.Series]:
        """Cumulative device-hours by step, from 0, for each size and method."""
        times = self.table("timing.csv")
        many = times.cell.map({name: devices(self.manifest(cell)) for name, cell in self.cells.items()})
        times = times.assign(hours=times.seconds * many / 3600)
        return {
            (str(size), str(method)): pd.concat([pd.Series({0: 0.0}), rows.groupby("step").hours.mean().cumsum()])
            for (size, method), rows in times.groupby(["size", "method"])
        }

    def log_over_full_rank(self) -> pd.DataFrame:
        """The log with losses minus full rank's loss on each batch."""
        return over_full_rank(self.table("log.csv"), self.full_rank_method)

    def judged_pairs(self, cell: Cell) -> pd.DataFrame:
        """Both scores of every minimal pair at the last evaluated step of ``cell`` (evaluate.minimal_pairs.score)."""
        return self._last_evaluated(cell, "minimal_pairs")

    def scored_texts(self, cell: Cell) -> pd.DataFrame:
        """Tokens and nats of every text at the last evaluated step of ``cell`` (evaluate.texts.score)."""
        return self._last_evaluated(cell, "perplexity")

    def _last_evaluated(self, cell: Cell, task: str) -> pd.DataFrame:
        files = sorted((self.folder / cell.name / "evaluation").glob(f"step-*-{task}-*.parquet"))
        if not files:
            raise UserError(f"{self.folder / cell.name}/evaluation holds no {task}; delete its evaluation.csv")
        return pd.read_parquet(files[-1])

    def _read(self, cell: Cell, file: str) -> pd.DataFrame:
        path = self.folder / cell.name / file
        try:
            rows = _read_csv(path)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {path}: {error}; run snakemake {path}") from error
        if (column := LATER_COLUMNS.get(file, "step")) not in rows:
            raise UserError(f"{path} has no column {column}: an earlier version wrote it; delete the cell's folder")
        return rows.assign(cell=cell.name, size=cell.size_name, method=cell.method_name, seed=cell.seed)


def _read_csv(path: Path) -> pd.DataFrame:
    """The table at ``path``. A number that is empty or nan is missing. No word is, though pandas takes "NA" for one."""
    columns = pd.read_csv(path, nrows=0).columns
    missing = {column: ["", "nan"] for column in columns if column not in TEXT_COLUMNS}  # the training's log writes nan
    words = {column: str for column in columns if column in TEXT_COLUMNS}
    return pd.read_csv(path, dtype=words, keep_default_na=False, na_values=missing)


def over_full_rank(log: pd.DataFrame, full_rank: str | None) -> pd.DataFrame:
    """``log`` with losses minus the loss of the method ``full_rank``, of equal size and seed, at each step.

    Both cells see one sequence of batches, so the difficulty of a batch cancels, and most of the noise with it. A cell
    without such a partner keeps its losses.
    """
    keys = ["size", "seed", "step"]
    full = log[log.method == full_rank][[*keys, "loss"]].rename(columns={"loss": "of_full"})
    both = log.merge(full, on=keys, how="left")
    return both.assign(loss=both.loss - both.of_full.fillna(0.0)).drop(columns="of_full")


def open_runs(results: Path) -> Runs:
    """The cells that the settings in the folder ``results`` select.

    Raises :class:`UserError` where a settings file is missing or not valid.
    """
    settings, folder = results / "settings", results / "cells"
    chosen = read_section(Selection, settings / "study.yaml")
    cells = {name: read_section(Cell, folder / name / "config.yaml") for name in chosen.cell_names}
    evaluation = read_section(Evaluation, settings / "evaluation.yaml")
    report = read_section(Report, settings / "report.yaml")
    names = suite_name(evaluation, report), texts_name(evaluation, report)
    kinds = {name: task.kind for name, task in evaluation.tasks.items()}
    return Runs(folder, cells, *names, chosen.baseline, report.margin, kinds)


def last_losses(runs: Runs) -> SeriesGroupBy:
    """The training losses of the last steps, grouped by cell; a loss that is not finite becomes NaN."""
    rows = runs.table("log.csv").groupby("cell").tail(LAST_STEPS)
    return rows.assign(loss=rows.loss.where(np.isfinite(rows.loss))).groupby("cell").loss


def training_seconds(folder: Path) -> float:
    """The seconds that the steps in the timing.csv of ``folder`` trained, over all jobs of the training.

    Steps that a stop made the trainer take again count once. Raises :class:`UserError` if the file cannot be read.
    """
    path = folder / "timing.csv"
    try:
        return float(pd.read_csv(path).seconds.sum())
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"cannot read {path}: {error}; run snakemake, which makes it") from error


def devices(manifest: Mapping[str, Any]) -> int:
    """The number of GPUs that trained the cell, or of CPU cores."""
    return int(str(manifest["processes"] if on_gpu(manifest) else manifest["threads"]))


def on_gpu(manifest: Mapping[str, Any]) -> bool:
    """Whether a GPU trained the cell."""
    return str(manifest["device"]).startswith("cuda")


def device_unit(manifests: Iterable[Mapping[str, Any]]) -> str:
    """The unit of the training time of all cells: GPU-hours if any cell trained on a GPU."""
    return "GPU-hours" if any(map(on_gpu, manifests)) else "CPU core-hours"
