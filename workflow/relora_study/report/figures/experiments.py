"""Figures of experiments: how the loss answers to what a sweep varies, and how a search found its settings."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...analysis.experiments import Swept, at_budgets, changes, is_numeric, responses
from ...config.experiments import PREVIOUS
from ..escape import figure_text
from ..numbers import in_words, method_label
from ..style import SMALL, log_axis, look, panels
from .parts import yardstick_lines

LOSS = "held-out loss\n(nats/token)"
FEW_VALUES = 4  # of a key, which stand at the axis as ticks
LOG_RATIO = 8  # of a key's largest to its smallest value, from which its axis is logarithmic


def draw_sweep(swept: Swept, keys: list[str], against: str | None) -> Figure:
    """The loss of a sweep's cells by what varies; or by method, with each method's change, where it compares them."""
    return draw_changes(swept, against) if against else draw_response(swept, keys)


def draw_changes(swept: Swept, against: str) -> Figure:
    """A row a size: the loss of each method, and its difference to what it is compared with, paired by seed."""
    figure, grid = _by_method(swept, columns=2)
    compared = changes(swept, against)
    for axes, size in zip(grid[:, 1], swept.runs["size"].unique(), strict=True):
        _draw_differences(axes, compared[compared["size"] == size], _names(swept.runs, size))
    of = "the method above" if against == PREVIOUS else method_label(against)
    grid[-1, 1].set_xlabel(figure_text(f"difference to {of}"))
    return figure


def _by_method(swept: Swept, columns: int = 1) -> tuple[Figure, Any]:
    """Panels with a row a size, high enough for a line a method; the first column shows the loss of each."""
    runs, means = swept.runs, responses(swept, [])
    sizes = list(runs["size"].unique())
    figure, grid = panels(len(sizes), columns, share_x=False)
    figure.set_figheight(0.5 + sum(0.5 + 0.2 * len(_names(runs, size)) for size in sizes))
    for axes, size in zip(grid[:, 0], sizes, strict=True):
        _draw_losses(axes, runs[runs["size"] == size], means[means["size"] == size], _names(runs, size))
        axes.set_title(figure_text(in_words(size)))
    grid[-1, 0].set_xlabel(LOSS.replace("\n", " "))
    return figure, grid


def _names(runs: pd.DataFrame, size: str) -> list[str]:
    return list(runs[runs["size"] == size].method.unique())


def _draw_losses(axes: Any, rows: pd.DataFrame, means: pd.DataFrame, names: list[str]) -> None:
    """Seeds as points and the mean with its interval, one method below another."""
    means = means.set_index("method").loc[names]
    axes.plot(rows.loss, rows.method.map(names.index), linestyle="", marker=".", color="#777777", alpha=0.6)
    _intervals(axes, means.loss, means.loss_low, means.loss_high, range(len(names)))
    axes.set_yticks(range(len(names)), [figure_text(method_label(name)) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    middle = sum(axes.get_xlim()) / 2
    for place, method in enumerate(names):
        if diverged := int(means.diverged[method]):
            note = f" {diverged} of {means.seeds[method]} diverged"
            left = rows.loss[rows.method == method].mean() > middle  # where the method's other seeds are not
            side = {"x": 0, "ha": "left"} if left else {"x": 1, "ha": "right"}
            axes.text(y=place, s=note, transform=axes.get_yaxis_transform(), va="center", fontsize=SMALL, **side)


def _draw_differences(axes: Any, rows: pd.DataFrame, names: list[str]) -> None:
    """The mean difference of each method with its interval, beside a line at no difference."""
    axes.axvline(0, color="#777777", linewidth=0.8)
    _intervals(axes, rows.difference, rows.difference_low, rows.difference_high, rows.method.map(names.index))
    axes.set_yticks(range(len(names)), [])
    axes.set_ylim(len(names) - 0.5, -0.5)


def _intervals(axes: Any, means: Any, low: Any, high: Any, places: Any) -> None:
    axes.hlines(places, low, high, color="#0072B2", linewidth=1.4)
    axes.plot(means, places, linestyle="", marker="o", color="#0072B2")


def draw_response(swept: Swept, keys: list[str]) -> Figure:
    """The loss of a sweep's cells by what varies: lines over one key, maps over two, points over more.

    Where every key has one value, the methods are what varies.
    """
    keys = [key for key in keys if swept.runs[key].nunique(dropna=False) > 1]
    if not keys:
        return _by_method(swept)[0]
    return _surface(swept, keys) if len(keys) == 2 and _is_grid(swept.runs, keys) else _lines(swept, keys)


def _is_grid(runs: pd.DataFrame, keys: list[str]) -> bool:
    """Whether every value of one key was tried with every value of the other, by every method."""
    if runs[keys].isna().any(axis=None):  # a key does nothing in one of them
        return False
    return bool(np.prod([runs[key].nunique() for key in keys]) == len(runs[keys].drop_duplicates()))


def _lines(swept: Swept, keys: list[str]) -> Figure:
    """A row a size, a column a key; a line a method where one key varies, with seeds as points and an interval.

    A method in which no key does anything has one setting, and a level line.
    """
    runs = swept.runs
    sizes, methods = list(runs["size"].unique()), list(runs.method.unique())
    figure, grid = panels(len(sizes), len(keys), share_x=False)
    for (row, column), axes in np.ndenumerate(grid):
        here = runs[runs["size"] == sizes[row]]
        places = _places(runs[keys[column]].dropna().infer_objects(), axes)
        for method in methods:
            _draw(axes, swept._replace(runs=here[here.method == method]), keys, column, places, look(methods, method))
        yardstick_lines(axes, swept.yardsticks)
        axes.set_xlabel(figure_text(keys[column].replace("_", " ")))
        axes.set_ylabel(LOSS if column == 0 else "")
        axes.set_title(figure_text(sizes[row].replace("_", " ")) if column == 0 else "")
    return figure


def _draw(
    axes: Any, swept: Swept, keys: list[str], column: int, places: dict[Any, float], drawn: dict[str, Any]
) -> None:
    rows = swept.runs
    if len(rows) and rows[keys].isna().all(axis=None):
        axes.axhline(rows.loss.mean(skipna=False), **{**drawn, "marker": ""})
        return
    x = rows[keys[column]].map(places)
    axes.plot(x, rows.loss, **{**drawn, "linestyle": "", "marker": ".", "label": "_", "alpha": 0.6})
    if len(keys) > 1 or rows.empty:
        axes.plot([], [], **{**drawn, "linestyle": "", "marker": "."})
        _others_fixed(axes, rows, keys, column, places, drawn)
        return
    means = responses(swept, keys)
    means = means.assign(x=means[keys[0]].map(places)).sort_values("x")
    axes.plot(means.x, means.loss, **drawn)
    axes.fill_between(means.x, means.loss_low, means.loss_high, color=drawn["color"], alpha=0.15, linewidth=0)


def _others_fixed(
    axes: Any, rows: pd.DataFrame, keys: list[str], column: int, places: dict[Any, float], drawn: dict[str, Any]
) -> None:
    """Thin lines of the mean loss, each over points that differ in one key alone."""
    others = [key for key in keys if key != keys[column]]
    thin = {"color": drawn["color"], "linewidth": 0.8, "alpha": 0.5, "label": "_"}
    for _, alike in rows.groupby(others, sort=False) if others else ():
        means = alike.assign(x=alike[keys[column]].map(places)).groupby("x").loss.mean()
        axes.plot(means.index, means, **thin)


def _places(values: pd.Series, axes: Any) -> dict[Any, float]:
    """Where each value of a key stands: a number at itself, words and null in the order of the configuration."""
    tried = list(values.drop_duplicates())
    if is_numeric(values) and values.notna().all():
        if min(tried) > 0 and max(tried) / min(tried) >= LOG_RATIO:
            log_axis(axes, "x")
        if len(tried) <= FEW_VALUES:
            axes.set_xticks(sorted(tried), [f"{value:g}" for value in sorted(tried)])
            axes.set_xticks([], minor=True)
        return {value: float(value) for value in tried}
    words = ["none" if pd.isna(value) else str(value).replace("_", " ") for value in tried]
    axes.set_xticks(range(len(tried)), [figure_text(word) for word in words])
    return {value: float(number) for number, value in enumerate(tried)}


def _surface(swept: Swept, keys: list[str]) -> Figure:
    """A row a method, a column a size: mean loss over both keys, as colour and number; the lowest in bold."""
    runs = swept.runs
    sizes, methods = list(runs["size"].unique()), list(runs.method.unique())
    figure, grid = panels(len(methods), len(sizes), share_x=False)
    table = responses(swept, keys)
    for (row, column), axes in np.ndenumerate(grid):
        here = table[(table["size"] == sizes[column]) & (table.method == methods[row])]
        values = here.pivot(index=keys[1], columns=keys[0], values="loss")
        axes.imshow(values, aspect="auto", origin="lower", cmap="cividis_r")
        for (y, x), loss in np.ndenumerate(values.to_numpy()):
            lowest = loss == np.nanmin(values.to_numpy())
            style = {"ha": "center", "va": "center", "fontsize": SMALL, "fontweight": "bold" if lowest else "normal"}
            box = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1}
            axes.text(x, y, f"{loss:.3f}" if np.isfinite(loss) else "diverged", bbox=box, **style)
        axes.set_xticks(range(values.shape[1]), [f"{value}" for value in values.columns])
        axes.set_yticks(range(values.shape[0]), [f"{value}" for value in values.index])
        axes.set(xlabel=figure_text(keys[0].replace("_", " ")), ylabel=figure_text(keys[1].replace("_", " ")))
        axes.set_title(figure_text(f"{sizes[column]}, {method_label(methods[row])}".replace("_", " ")))
    return figure


def draw_gap_by_tokens(swept: Swept, against: str) -> Figure:
    """The loss of each method by trained tokens, and its difference to ``against`` on as many tokens."""
    swept = at_budgets(swept)
    figure, ((losses, gaps),) = panels(1, 2, share_x=False)
    methods = list(swept.runs.method.unique())
    tables = (losses, responses(swept, []), "loss"), (gaps, changes(swept, against), "difference")
    for axes, table, value in tables:
        table = table.assign(tokens=table["size"].astype(float))
        for method in table.method.unique():
            here, drawn = table[table.method == method], look(methods, method)
            axes.plot(here.tokens, here[value], **drawn)
            axes.vlines(here.tokens, here[f"{value}_low"], here[f"{value}_high"], color=drawn["color"], linewidth=1)
        log_axis(axes, "x")
        axes.set_xlabel("trained tokens")
    gaps.axhline(0, color="#777777", linewidth=0.8)
    losses.set_ylabel(LOSS)
    gaps.set_ylabel(figure_text(f"difference to {method_label(against)}"))
    return figure


def draw_reading(cells: pd.DataFrame, reading: str, label: str) -> Figure:
    """The gap to full rank by a ``reading``: a point a method, the mean of its seeds, and a line a size and length."""
    known = cells.dropna(subset=[reading])
    strata = list(known.stratum.unique())
    means = known.groupby(["stratum", "method", "variant"], as_index=False)[[reading, "gap"]].mean()
    figure, ((axes,),) = panels(1, 1)
    for stratum in strata:
        here = means[means.stratum == stratum].sort_values(reading)
        axes.plot(here[reading], here.gap, **look(strata, stratum) | {"marker": ".", "label": in_words(stratum)})
    axes.set_xlabel(label)
    axes.set_ylabel("gap to full rank\n(nats/token)")
    return figure


def draw_search(rungs: pd.DataFrame) -> Figure:
    """The mean loss of every candidate at each rung that it reached: a column a size, a row a method."""
    sizes, methods = sorted(rungs["size"].unique(), key=_number_in), list(rungs.method.unique())
    figure, grid = panels(len(methods), len(sizes), share_y="row")
    for (row, column), axes in np.ndenumerate(grid):
        here = rungs[(rungs["size"] == sizes[column]) & (rungs.method == methods[row])]
        for _, candidate in here.groupby("candidate", sort=False):
            chosen = (candidate.outcome == "chosen").any()
            means = candidate.groupby("step").loss.agg(lambda losses: losses.mean(skipna=False))
            axes.plot(means.index, means, **_candidate_look(chosen))
        axes.set_title(figure_text(sizes[column].replace("_", " ")) if row == 0 else "")
        axes.set_ylabel(figure_text(method_label(methods[row])) + "\nvalidation loss" if column == 0 else "")
        axes.set_xlabel("optimizer step" if row == len(methods) - 1 else "")
    return figure


def _number_in(size: str) -> int:
    """The order of sizes that are named by a width; others stay as they are."""
    return int("0" + "".join(filter(str.isdigit, size)))


def _candidate_look(chosen: bool) -> dict[str, Any]:
    if chosen:
        return {"color": "#D55E00", "marker": "o", "linewidth": 1.4, "label": "chosen", "zorder": 3}
    return {"color": "#777777", "marker": ".", "linewidth": 0.8, "label": "dropped"}
