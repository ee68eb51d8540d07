"""Figures of what the checkpoints score: minimal pairs and perplexity."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..load import Results
from ..style import POINTS, log_axis, look, panels
from .parts import accuracy_label, mean_line

PHENOMENON = "phenomenon/"


def blimp_over_training(results: Results) -> Figure:
    """Minimal-pair accuracy of each phenomenon by step, its sizes side by side."""
    rows, items = _phenomena(results)
    places = [(item, size) for item in items for size in results.sizes]
    columns = len(results.sizes) * min(len(items), max(1, 4 // len(results.sizes)))
    figure, grid = panels(-(-len(places) // columns), columns)
    for number, axes in enumerate(grid.flat):
        if number >= len(places):
            axes.set_axis_off()
            continue
        item, size = places[number]
        axes.set_title(f"{_words(item)}, {size.replace('_', ' ')}", fontsize=7)
        axes.axhline(0.5, color="grey", linewidth=0.6)
        here = rows[(rows["size"] == size) & (rows["item"] == item)]
        for method in results.methods:
            mean_line(axes, here[here.method == method], "seed", look(results.methods, method, marker=""))
        if number + columns >= len(places):  # nothing below it
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("optimizer step")
    for axes in grid[:, 0]:
        axes.set_ylabel(accuracy_label(results))
    return figure


def _phenomena(results: Results) -> tuple[pd.DataFrame, list[str]]:
    """The rows of accuracy by phenomenon, and the phenomena in order."""
    rows = results.table("evaluation.csv")
    rows = rows[rows["item"].str.startswith(PHENOMENON) & (rows.metric == "accuracy")]
    return rows, sorted(rows["item"].unique())


def _words(item: str) -> str:
    return item.removeprefix(PHENOMENON).replace("_", " ").replace("npi", "NPI")


def _final_bars(results: Results, rows: pd.DataFrame, label: str) -> Figure:
    """Points by item (y axis) and method at the last step, a panel a size."""
    rows = rows[rows.step == rows.groupby("cell").step.transform("max")]
    figure, grid = panels(1, len(results.sizes))
    items = sorted(rows["item"].unique())
    figure.set_figheight(1.3 + 0.24 * len(items))
    for axes, size in zip(grid[0], results.sizes, strict=True):
        for place, method in enumerate(results.methods):
            chosen = rows[(rows["size"] == size) & (rows.method == method)].groupby("item").value.mean().reindex(items)
            shift = 0.18 * (place - (len(results.methods) - 1) / 2)
            drawn = look(results.methods, method, linestyle="")
            drawn["marker"] = drawn["marker"] or POINTS[method]
            axes.plot(chosen, np.arange(len(items)) + shift, **drawn)
        axes.set(title=size.replace("_", " "), xlabel=label, yticks=range(len(items)), yticklabels=[])
        axes.grid(axis="y", linewidth=0.3)
    grid[0, 0].set_yticklabels([_words(item) for item in items])
    return figure


def blimp_by_phenomenon(results: Results) -> Figure:
    """Minimal-pair accuracy of each phenomenon at the last step."""
    figure = _final_bars(results, _phenomena(results)[0], accuracy_label(results).replace("\n", " "))
    for axes in figure.axes:
        axes.axvline(0.5, color="grey", linewidth=0.6)
    return figure


def perplexity_by_domain(results: Results) -> Figure:
    """Token perplexity of each held-out domain at the last step."""
    rows = results.table("evaluation.csv")
    averages = ["overall", "macro_average"]
    rows = rows[(rows.metric == "token_perplexity") & ~rows["item"].isin(averages)]
    figure = _final_bars(results, rows, "token perplexity")
    for axes in figure.axes:
        log_axis(axes, "x")
    return figure
