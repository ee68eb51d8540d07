"""Parts that figures share: grids of panels by size, and lines with their bands."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import scipy
from matplotlib.figure import Figure
from pandas.api.typing import SeriesGroupBy

from ...analysis.intervals import BAND_RESAMPLES, mean_interval
from ...analysis.source import Source
from ...config.benchmark_names import TEMPLATED
from ..escape import figure_text
from ..style import SMALL, look, panels

NEAR = 0.5  # of the data's height: lines that lie farther outside would squeeze the curves to less than half the panel
LABEL_HEIGHT = 0.13  # inches, of a line of small type
Named = tuple[float, str, dict[str, Any]]  # a place on the y axis, words, and their look
CORNERS: dict[str, dict[str, Any]] = {
    "above": {"x": 0.99, "y": 0.98, "ha": "right", "va": "top"},
    "below": {"x": 0.01, "y": 0.02},
}


def mean_line(axes: Any, rows: pd.DataFrame, over: str, drawn: dict[str, Any]) -> None:
    """Draw the mean of ``value`` by step; with a 95 % bootstrap interval where ``over`` has several values.

    Several seeds are drawn as points, too: an interval of three values hides what they are.
    """
    by_step = rows[np.isfinite(rows.value.astype(float))].groupby("step").value
    means = by_step.mean()
    if means.empty:
        return
    axes.plot(means.index, means, **drawn)
    if rows[over].nunique() > 1:
        band = intervals_by_step(by_step)
        axes.fill_between(band.index, band.low, band.high, color=drawn["color"], alpha=0.15, linewidth=0)
        if over == "seed":
            axes.plot(rows.step, rows.value, **seed_points(drawn["color"]))


def seed_points(color: str) -> dict[str, Any]:
    """The look of single seeds behind the mean of a method."""
    return {"color": color, "linestyle": "", "marker": ".", "markersize": 1.5, "alpha": 0.4}


def intervals_by_step(by_step: SeriesGroupBy) -> pd.DataFrame:
    """95 % bootstrap interval of the mean at each step, in columns low and high."""
    # One bootstrap serves all steps that have equally many values.
    values = pd.DataFrame([(step, group.to_numpy()) for step, group in by_step], columns=["step", "values"])
    parts = []
    for _, group in values.groupby(values["values"].map(len)):
        low, high = mean_interval(np.stack(list(group["values"])), BAND_RESAMPLES)
        parts.append(pd.DataFrame({"low": low, "high": high}, index=group.step.to_numpy()))
    return pd.concat(parts).sort_index()


def grid_of(source: Source, rows: list[str], titles: list[str]) -> tuple[Figure, Any]:
    """A panel for each of ``rows`` and each size, with labels at the edges."""
    figure, grid = panels(len(rows), len(source.sizes), share_y="row")
    for column, size in enumerate(source.sizes):
        grid[0, column].set_title(size.replace("_", " "))
        grid[-1, column].set_xlabel("optimizer step")
    for axes, title in zip(grid[:, 0], titles, strict=True):
        axes.set_ylabel(title)
    return figure, grid


def smooth_loss(log: pd.DataFrame) -> pd.DataFrame:
    """Rows of step, seed and value: our losses as means over nine steps; published losses as they are, with gaps."""
    rows = log[["step", "seed"]].assign(value=log.loss)
    smooth = rows.groupby("seed").value.transform(lambda loss: loss.rolling(9, center=True, min_periods=1).mean())
    return rows.assign(value=smooth.where(rows.seed >= 0, rows.value))


def accuracy_label(source: Source) -> str:
    """The label of an axis of minimal-pair accuracy."""
    return "templated-pair\naccuracy" if source.suite == TEMPLATED else f"{figure_text(source.suite)} accuracy"


def by_step(
    source: Source, readings: list[tuple[str, str, str]], titles: list[str], over: str = "layer"
) -> tuple[Figure, Any]:
    """Panels of readings at the regular checkpoints, a row for each (quantity, component, metric)."""
    figure, grid = grid_of(source, titles, titles)
    draw_readings(source, source.regular(), grid, readings, over)
    return figure, grid


def draw_readings(
    source: Source, rows: pd.DataFrame, grid: Any, readings: list[tuple[str, str, str]], over: str = "layer"
) -> None:
    """Draw each (quantity, component, metric) in a row of panels: mean and band ``over``, a line for each method."""
    by_reading = dict(list(rows.groupby(["quantity", "component", "metric", "size"])))
    for (row, column), axes in np.ndenumerate(grid):
        panel = by_reading.get((*readings[row], source.sizes[column]), rows.iloc[:0])
        draw_methods(source, panel, axes, over)


def draw_methods(source: Source, panel: pd.DataFrame, axes: Any, over: str = "layer", **changes: Any) -> None:
    """Draw ``value`` by step in one panel, a line for each method, in the order of the study."""
    by_method = dict(list(panel.groupby("method")))
    for method in source.methods:
        if method in by_method:
            mean_line(axes, by_method[method], over, look(source.methods, method, **changes))


def yardstick_lines(axes: Any, losses: Mapping[str, float]) -> None:
    """Draw ``losses`` (nats/token, by name) as thin lines across a linear axis of losses whose curves are drawn.

    Each has its name at the right end, and no entry in the legend. The axis grows to lines near the data; of those far
    above or below, a note in the top right or bottom left corner gives names and losses, because learning curves leave
    these corners free. A panel without data stays as it is.
    """
    low, high = axes.dataLim.intervaly
    if not np.isfinite(high - low):
        return
    reach = NEAR * (high - low)
    ordered = pd.Series(losses, dtype=float).sort_values()
    for side, far in (("above", ordered[ordered > high + reach]), ("below", ordered[ordered < low - reach])):
        if len(far):
            note = f"{side}: " + ", ".join(f"{name} {loss:.2f}" for name, loss in far.items())
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            axes.text(s=note, transform=axes.transAxes, fontsize=SMALL, bbox=box, zorder=1, **CORNERS[side])
    near = ordered[ordered.between(low - reach, high + reach)]
    for loss in near:
        axes.axhline(loss, color="grey", linewidth=0.6, zorder=0)
    names_at_right(axes, [(loss, str(name), {}) for name, loss in near.items()])


def names_at_right(axes: Any, named: list[Named]) -> None:
    """Write names, each with its place on the y axis and its look, beside ``axes``, as near to it as others allow."""
    named = sorted(named, key=lambda one: one[0])
    low, high = axes.get_ylim()
    height = LABEL_HEIGHT * (high - low) / (axes.get_position().height * axes.figure.get_figheight())
    steps = height * np.arange(len(named))
    # The nearest places (least squares) in which each is a line above the one before.
    places = scipy.optimize.isotonic_regression([place for place, _, _ in named] - steps).x + steps if named else []
    for place, (_, name, drawn) in zip(places, named, strict=True):
        axes.text(1.01, place, name, transform=axes.get_yaxis_transform(), va="center", fontsize=SMALL, **drawn)
