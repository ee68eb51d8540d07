"""Figures of the evaluation: accuracy on minimal pairs and perplexity."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...analysis.source import Source
from ..escape import figure_text
from ..style import POINTS, SMALL, log_axis, look, panels
from .parts import accuracy_label, draw_methods, seed_points

PHENOMENON = "phenomenon/"
ROW = 0.7  # of the height of an item's row, which its methods share


def blimp_over_training(source: Source) -> Figure:
    """Minimal-pair accuracy by step: a panel for each phenomenon and size, sizes side by side."""
    rows, items = _phenomena(source)
    places = [(item, size) for item in items for size in source.sizes]
    columns = len(source.sizes) * min(len(items), max(1, 4 // len(source.sizes)))
    figure, grid = panels(-(-len(places) // columns), columns, share_y="all")
    for number, axes in enumerate(grid.flat):
        if number >= len(places):
            axes.set_axis_off()
            continue
        item, size = places[number]
        axes.set_title(f"{_words(item)}\n{size.replace('_', ' ')}", fontsize=SMALL)
        axes.axhline(0.5, color="grey", linewidth=0.6)
        here = rows[(rows["size"] == size) & (rows["item"] == item)]
        draw_methods(source, here, axes, "seed", marker="")
        if number + columns >= len(places):  # no panel below
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("optimizer step")
    for axes in grid[:, 0]:
        axes.set_ylabel(accuracy_label(source))
    return figure


def _phenomena(source: Source) -> tuple[pd.DataFrame, list[str]]:
    """The rows of accuracy by phenomenon, and the phenomena in order."""
    rows = source.table("evaluation.csv")
    rows = rows[rows["item"].str.startswith(PHENOMENON) & (rows.metric == "accuracy")]
    return rows, sorted(rows["item"].unique())


def _words(item: str) -> str:
    """The name of a phenomenon in words, or of a domain as its user wrote it."""
    if not item.startswith(PHENOMENON):
        return figure_text(item)
    return figure_text(item.removeprefix(PHENOMENON).replace("_", " ").replace("npi", "NPI"))


def _final_bars(source: Source, rows: pd.DataFrame, label: str) -> Figure:
    """A point for each item (y axis) and method at the last step, in a panel for each size."""
    rows = rows[rows.step == rows.groupby("cell").step.transform("max")]
    figure, grid = panels(1, len(source.sizes))
    items = sorted(rows["item"].unique())
    figure.set_figheight(1.3 + 0.24 * len(items))
    for axes, size in zip(grid[0], source.sizes, strict=True):
        for place, method in enumerate(source.methods):
            here = rows[(rows["size"] == size) & (rows.method == method)]
            chosen = here.groupby("item").value.mean().reindex(items)
            shift = ROW * ((place + 0.5) / len(source.methods) - 0.5)
            drawn = look(source.methods, method, linestyle="")
            drawn["marker"] = drawn["marker"] or POINTS[method]
            axes.plot(chosen, np.arange(len(items)) + shift, **drawn)
            if here.seed.nunique() > 1:
                axes.plot(here.value, here["item"].map(items.index) + shift, **seed_points(drawn["color"]))
        axes.set(title=size.replace("_", " "), xlabel=label, yticks=range(len(items)), yticklabels=[])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(-0.5, len(items) - 0.5)
        for between in range(1, len(items)):
            axes.axhline(between - 0.5, color="grey", linewidth=0.3)
    grid[0, 0].set_yticklabels([_words(item) for item in items])
    return figure


def blimp_by_phenomenon(source: Source) -> Figure:
    """Minimal-pair accuracy of each phenomenon at the last step."""
    figure = _final_bars(source, _phenomena(source)[0], accuracy_label(source).replace("\n", " "))
    for axes in figure.axes:
        axes.axvline(0.5, color="grey", linewidth=0.6)
    return figure


def perplexity_by_domain(source: Source) -> Figure:
    """Token perplexity of each held-out domain at the last step."""
    rows = source.table("evaluation.csv")
    averages = ["overall", "macro_average"]
    rows = rows[(rows.metric == "token_perplexity") & ~rows["item"].isin(averages)]
    figure = _final_bars(source, rows, "token perplexity")
    for axes in figure.axes:
        log_axis(axes, "x")
    return figure
