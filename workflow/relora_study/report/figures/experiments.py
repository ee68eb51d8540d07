"""Figures of experiments: how the loss answers to what a sweep varies, and how a search found its settings."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...analysis.experiments import is_numeric, responses
from ..escape import figure_text
from ..numbers import method_label
from ..style import log_axis, look, panels

LOSS = "held-out loss\n(nats/token)"
LOG_RATIO = 8  # of a key's largest to its smallest value, from which its axis is logarithmic


def draw_response(runs: pd.DataFrame, keys: list[str]) -> Figure:
    """The loss of a sweep's cells by what varies: lines over one key, maps over two, points over more."""
    return _surface(runs, keys) if len(keys) == 2 and _is_grid(runs, keys) else _lines(runs, keys or ["method"])


def _is_grid(runs: pd.DataFrame, keys: list[str]) -> bool:
    """Whether every value of one key was tried with every value of the other."""
    return bool(np.prod([runs[key].nunique() for key in keys]) == len(runs[keys].drop_duplicates()))


def _lines(runs: pd.DataFrame, keys: list[str]) -> Figure:
    """A row a size, a column a key; a line a method where one key varies, with seeds as points and an interval."""
    sizes, methods = list(runs["size"].unique()), list(runs.method.unique())
    figure, grid = panels(len(sizes), len(keys), share_x=False)
    for (row, column), axes in np.ndenumerate(grid):
        here = runs[runs["size"] == sizes[row]]
        places = _places(runs[keys[column]], axes)
        for method in methods:
            _draw(axes, here[here.method == method], keys, column, places, look(methods, method))
        axes.set_xlabel(figure_text(keys[column].replace("_", " ")))
        axes.set_ylabel(LOSS if column == 0 else "")
        axes.set_title(figure_text(sizes[row].replace("_", " ")) if column == 0 else "")
    return figure


def _draw(
    axes: Any, rows: pd.DataFrame, keys: list[str], column: int, places: dict[Any, float], drawn: dict[str, Any]
) -> None:
    x = rows[keys[column]].map(places)
    axes.plot(x, rows.loss, **{**drawn, "linestyle": "", "marker": ".", "label": "_", "alpha": 0.6})
    if len(keys) > 1 or rows.empty:
        axes.plot([], [], **{**drawn, "linestyle": "", "marker": "."})
        return
    means = responses(rows, keys if keys != ["method"] else [])
    means = means.assign(x=means[keys[0]].map(places)).sort_values("x")
    axes.plot(means.x, means.loss, **drawn)
    axes.fill_between(means.x, means.loss_low, means.loss_high, color=drawn["color"], alpha=0.15, linewidth=0)


def _places(values: pd.Series, axes: Any) -> dict[Any, float]:
    """Where each value of a key stands: a number at itself, a word in the order of the configuration."""
    tried = list(values.drop_duplicates())
    if is_numeric(values):
        if min(tried) > 0 and max(tried) / min(tried) >= LOG_RATIO:
            log_axis(axes, "x")
        return {value: float(value) for value in tried}
    axes.set_xticks(range(len(tried)), [figure_text(str(value).replace("_", " ")) for value in tried])
    return {value: float(number) for number, value in enumerate(tried)}


def _surface(runs: pd.DataFrame, keys: list[str]) -> Figure:
    """A row a method, a column a size: mean loss over both keys, as colour and number; the lowest in bold."""
    sizes, methods = list(runs["size"].unique()), list(runs.method.unique())
    figure, grid = panels(len(methods), len(sizes), share_x=False)
    table = responses(runs, keys)
    for (row, column), axes in np.ndenumerate(grid):
        here = table[(table["size"] == sizes[column]) & (table.method == methods[row])]
        values = here.pivot(index=keys[1], columns=keys[0], values="loss")
        axes.imshow(values, aspect="auto", origin="lower", cmap="cividis_r")
        for (y, x), loss in np.ndenumerate(values.to_numpy()):
            lowest = loss == np.nanmin(values.to_numpy())
            style = {"ha": "center", "va": "center", "fontsize": 7, "fontweight": "bold" if lowest else "normal"}
            box = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1}
            axes.text(x, y, f"{loss:.3f}" if np.isfinite(loss) else "diverged", bbox=box, **style)
        axes.set_xticks(range(values.shape[1]), [f"{value}" for value in values.columns])
        axes.set_yticks(range(values.shape[0]), [f"{value}" for value in values.index])
        axes.set(xlabel=figure_text(keys[0].replace("_", " ")), ylabel=figure_text(keys[1].replace("_", " ")))
        axes.set_title(figure_text(f"{sizes[column]}, {method_label(methods[row])}".replace("_", " ")))
    return figure


def draw_search(rungs: pd.DataFrame) -> Figure:
    """The loss of every candidate at each rung that it reached: a column a size, a row a method."""
    sizes, methods = list(rungs["size"].unique()), list(rungs.method.unique())
    figure, grid = panels(len(methods), len(sizes))
    for (row, column), axes in np.ndenumerate(grid):
        here = rungs[(rungs["size"] == sizes[column]) & (rungs.method == methods[row])]
        for _, candidate in here.groupby("candidate", sort=False):
            chosen = (candidate.outcome == "chosen").any()
            axes.plot(candidate.step, candidate.loss, **_candidate_look(chosen))
        axes.set_title(figure_text(f"{sizes[column]}, {method_label(methods[row])}".replace("_", " ")))
        axes.set_ylabel("validation loss\n(nats/token)" if column == 0 else "")
        axes.set_xlabel("optimizer step" if row == len(methods) - 1 else "")
    return figure


def _candidate_look(chosen: bool) -> dict[str, Any]:
    if chosen:
        return {"color": "#D55E00", "marker": "o", "linewidth": 1.4, "label": "chosen", "zorder": 3}
    return {"color": "#777777", "marker": ".", "linewidth": 0.8, "label": "dropped"}
