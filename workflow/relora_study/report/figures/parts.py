"""What several figures are made of: grids of panels by size, and lines with their bands."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..captions import SUITES
from ..load import Results, regular_readings
from ..style import look, panels

RESAMPLES = 400


def mean_line(axes: Any, rows: pd.DataFrame, over: str, drawn: dict[str, Any]) -> None:
    """Mean of ``value`` by step, with its 95 % bootstrap interval where there are several of ``over``."""
    by_step = rows.dropna(subset="value").groupby("step").value
    means = by_step.mean()
    if means.empty:
        return
    axes.plot(means.index, means, **drawn)
    if rows[over].nunique() > 1:
        low, high = zip(*(_interval(values.to_numpy()) for _, values in by_step), strict=True)
        axes.fill_between(means.index, low, high, color=drawn["color"], alpha=0.15, linewidth=0)


def _interval(values: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean: within the values, as PER and condition numbers must be."""
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def grid_of(results: Results, rows: list[str], titles: list[str]) -> tuple[Figure, Any]:
    """A panel for each of ``rows`` and each size, labelled at the edges."""
    figure, grid = panels(len(rows), len(results.sizes))
    for column, size in enumerate(results.sizes):
        grid[0, column].set_title(size.replace("_", " "))
        grid[-1, column].set_xlabel("optimizer step")
    for axes, title in zip(grid[:, 0], titles, strict=True):
        axes.set_ylabel(title)
    return figure, grid


def smooth_loss(log: pd.DataFrame) -> pd.DataFrame:
    """Rows of step, seed and value: each seed's loss, a mean of nine steps; the released curve as it is, with gaps."""
    rows = log[["step", "seed"]].assign(value=log.loss)
    smooth = rows.groupby("seed").value.transform(lambda loss: loss.rolling(9, center=True, min_periods=1).mean())
    return rows.assign(value=smooth.where(rows.seed >= 0, rows.value))


def accuracy_label(results: Results) -> str:
    """What the axis of minimal-pair accuracy is called."""
    return "templated-pair\naccuracy" if results.suite == SUITES["templated"] else f"{results.suite} accuracy"


def by_step(results: Results, readings: list[tuple[str, str, str]], titles: list[str]) -> tuple[Figure, Any]:
    """A row of panels for each (quantity, component, metric) at the regular checkpoints; mean and band over layers."""
    figure, grid = grid_of(results, titles, titles)
    rows = regular_readings(results)
    for (row, column), axes in np.ndenumerate(grid):
        quantity, component, metric = readings[row]
        chosen = rows[(rows.quantity == quantity) & (rows.component == component) & (rows.metric == metric)]
        chosen = chosen[chosen["size"] == results.sizes[column]]
        for method in results.methods:
            mean_line(axes, chosen[chosen.method == method], "layer", look(results.methods, method))
    return figure, grid
