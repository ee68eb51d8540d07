"""One reader for all that the cells measured: long tables with the cell's name, size and method beside each row."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.typing import SeriesGroupBy

from ..config import Cell, Evaluation, Report, Selection, cell_name, read_section
from ..errors import UserError
from ..files import read_yaml
from .captions import Shown, shown, suite_name, texts_name
from .published import NAMES, published_table
from .shapes import WIDTHS

LAST_STEPS = 20  # of the training loss that are averaged: one batch is noisy
LATER_COLUMNS = {"log.csv": "update_norm"}  # what runs of an earlier version did not write


@dataclass(frozen=True)
class Results:
    """The study's cells, in its order, and where they lie; the released curves beside them, or alone, where wanted."""

    folder: Path
    cells: dict[str, Cell]
    published: Shown = "off"
    suite: str = "BLiMP"
    texts: str = "Paloma"
    chosen_baseline: str | None = None
    _read_already: dict[str, pd.DataFrame] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def sizes(self) -> list[str]:
        """The sizes in the study's order."""
        own = list(dict.fromkeys(cell.size_name for cell in self.cells.values()))
        return list(WIDTHS) if self.published == "only" else own

    @property
    def methods(self) -> list[str]:
        """The methods in the study's order."""
        own = list(dict.fromkeys(cell.method_name for cell in self.cells.values()))
        return own if self.published == "off" else own + list(NAMES.values())

    def table(self, file: str) -> pd.DataFrame:
        """The rows of ``file`` (log.csv, evaluation.csv, dynamics.csv) of all cells, with cell, size, method, seed."""
        parts = [self.own_table(file)] if self.cells else []
        if self.published != "off":
            released = published_table(file)
            parts.append(released[released["size"].isin(self.sizes)])
        return pd.concat(parts, ignore_index=True)

    def own_table(self, file: str) -> pd.DataFrame:
        """The same without the released curves."""
        if file not in self._read_already:
            parts = [self._read(cell, file) for cell in self.cells.values()]
            self._read_already[file] = pd.concat(parts, ignore_index=True)
        return self._read_already[file]

    @property
    def baseline(self) -> str | None:
        """The method of full rank that the others are compared with: the chosen one, or else the first of rank 0."""
        whole = (cell.method_name for cell in self.cells.values() if not cell.method.rank)
        return self.chosen_baseline or next(whole, None)

    def peak_rates(self) -> str:
        """The cells' peak learning rates, each once."""
        return " and ".join(f"{rate:g}" for rate in dict.fromkeys(c.train.learning_rate for c in self.cells.values()))

    def full_rank_of(self, cell: Cell) -> Cell | None:
        """What ``cell``, which has adapters, is compared with: full rank, the same size and seed; None without it."""
        if not cell.method.rank or self.baseline is None:
            return None
        return self.cells.get(cell_name(cell.size_name, self.baseline, cell.seed))

    def manifest(self, cell: Cell) -> dict[str, Any]:
        """What ``cell`` wrote of its run when it ended."""
        return dict(read_yaml(self.folder / cell.name / "manifest.json"))

    def judged_pairs(self, cell: Cell) -> pd.DataFrame:
        """Both scores of every minimal pair at the last evaluated step of ``cell`` (evaluate.minimal_pairs.judge)."""
        return self._last_evaluated(cell, "pairs")

    def scored_texts(self, cell: Cell) -> pd.DataFrame:
        """Tokens and nats of every text at the last evaluated step of ``cell`` (evaluate.perplexity.score_texts)."""
        return self._last_evaluated(cell, "texts")

    def _last_evaluated(self, cell: Cell, kind: str) -> pd.DataFrame:
        files = sorted((self.folder / cell.name / "evaluation").glob(f"step-*-{kind}.parquet"))
        if not files:
            raise UserError(f"{self.folder / cell.name}/evaluation holds no {kind}; delete its evaluation.csv")
        return pd.read_parquet(files[-1])

    def _read(self, cell: Cell, file: str) -> pd.DataFrame:
        path = self.folder / cell.name / file
        try:
            rows = pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {path}: {error}; run snakemake {path}") from error
        if (column := LATER_COLUMNS.get(file, "step")) not in rows:
            raise UserError(f"{path} has no column {column}: an earlier version wrote it; delete the cell's folder")
        return rows.assign(cell=cell.name, size=cell.size_name, method=cell.method_name, seed=cell.seed)


def open_results(results: Path) -> Results:
    """What the results folder holds of the cells that its settings select, with what its report settings ask for."""
    settings, folder = results / "settings", results / "cells"
    chosen = read_section(Selection, settings / "study.yaml")
    cells = {name: read_section(Cell, folder / name / "config.yaml") for name in chosen.cell_names}
    evaluation = read_section(Evaluation, settings / "evaluation.yaml")
    report = read_section(Report, settings / "report.yaml")
    names = suite_name(evaluation, report), texts_name(evaluation, report)
    return Results(folder, cells, shown(report, cells), *names, chosen.baseline)


def full_rank(cell: Cell, component: str) -> int:
    """min(m, n) of a component's matrix."""
    size = cell.size
    narrow = {"v": size.num_key_value_heads * size.head_dim, "w2": min(size.d_model, size.intermediate_size)}
    return narrow.get(component, size.d_model)


def rank_ceiling(cell: Cell, component: str) -> float:
    """r / min(m, n) of a component's adapters: what PER of their product cannot pass."""
    return cell.method.rank / full_rank(cell, component)


def last_losses(results: Results) -> SeriesGroupBy:
    """The training losses of each cell's last steps, by cell."""
    return results.own_table("log.csv").groupby("cell").tail(LAST_STEPS).groupby("cell").loss


def measured(results: Results, suite: str, item: str, metric: str) -> pd.DataFrame:
    """The rows of evaluation.csv of one suite, item and metric."""
    rows = results.table("evaluation.csv")
    return rows[(rows.suite == suite) & (rows["item"] == item) & (rows.metric == metric)]


def regular_readings(results: Results) -> pd.DataFrame:
    """Rows of dynamics.csv at the regular checkpoints: every method at the same steps."""
    rows = results.table("dynamics.csv")
    every = rows.cell.map({name: cell.train.checkpoint_every for name, cell in results.cells.items()})
    return rows[rows.step % every == 0]


def published_readings(results: Results, quantity: str, metric: str) -> pd.DataFrame:
    """Rows of dynamics.csv as the paper reads them: full rank at each multiple, ReLoRA shortly after it.

    ``step`` is the multiple that the reading is labelled with: the paper's code reads ReLoRA at the label + 100.
    """
    rows = results.table("dynamics.csv")
    rows = rows[(rows.quantity == quantity) & (rows.metric == metric)]
    kept = [rows[~rows.cell.isin(results.cells)]]  # the released curves, which are labelled so
    for name, cell in results.cells.items():
        period = cell.method.reset_period
        every, offset = (period, cell.train.checkpoint_offset) if period else (cell.train.checkpoint_every, 0)
        own = rows[rows.cell == name]
        first = own.step == 0
        kept.append(own[first])
        shifted = own[~first & (own.step % every == offset) & (own.step > offset)]
        kept.append(shifted.assign(step=shifted.step - offset))
    return pd.concat(kept)
