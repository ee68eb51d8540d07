"""Figures of what the checkpoints score: minimal pairs and perplexity."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..load import Results
from ..style import look, panels
from .parts import mean_line


def minimal_pairs_over_training(results: Results) -> Figure:
    """Minimal-pair accuracy of each phenomenon by step."""
    rows = results.table("evaluation.csv")
    rows = rows[rows["item"].str.startswith("phenomenon/") & (rows.metric == "accuracy")]
    items = sorted(rows["item"].unique())
    columns, each = min(4, len(items)), -(-len(items) // 4)
    figure, grid = panels(each * len(results.sizes), columns)
    for number, axes in enumerate(grid.flat):
        size, place = results.sizes[number // (each * columns)], number % (each * columns)
        if place >= len(items):
            axes.set_axis_off()
            continue
        axes.set_title(f"{size}: {items[place].removeprefix('phenomenon/').replace('_', ' ')}", fontsize=7)
        axes.axhline(0.5, color="grey", linewidth=0.6)
        here = rows[(rows["size"] == size) & (rows["item"] == items[place])]
        for method in results.methods:
            mean_line(axes, here[here.method == method], "seed", look(results.methods, method, marker=""))
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy")
    return figure


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
            axes.plot(chosen, np.arange(len(items)) + shift, **{**drawn, "marker": drawn["marker"] or "x"})
        axes.set(title=size, xlabel=label, yticks=range(len(items)), yticklabels=[])
        axes.grid(axis="y", linewidth=0.3)
    grid[0, 0].set_yticklabels([item.removeprefix("phenomenon/").replace("_", " ") for item in items])
    return figure


def minimal_pairs_by_phenomenon(results: Results) -> Figure:
    """Minimal-pair accuracy of each phenomenon at the last step."""
    rows = results.table("evaluation.csv")
    figure = _final_bars(
        results, rows[rows["item"].str.startswith("phenomenon/") & (rows.metric == "accuracy")], "accuracy"
    )
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
        axes.set_xscale("log")
    return figure
