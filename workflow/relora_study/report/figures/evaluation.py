"""Figures of the evaluation: accuracy on minimal pairs and perplexity."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...analysis.differences import gaps
from ...analysis.results import Runs
from ...analysis.source import Overlay, Source
from ..escape import figure_text
from ..style import POINTS, log_axis, look, panels
from .parts import accuracy_label, draw_methods, seed_points

PHENOMENON = "phenomenon/"


def blimp_over_training(source: Source) -> Figure:
    """Minimal-pair accuracy by step: a panel for each phenomenon and size, sizes side by side."""
    rows, items = _phenomena(source)
    places = [(item, size) for item in items for size in source.sizes]
    columns = len(source.sizes) * min(len(items), max(1, 4 // len(source.sizes)))
    figure, grid = panels(-(-len(places) // columns), columns)
    for number, axes in enumerate(grid.flat):
        if number >= len(places):
            axes.set_axis_off()
            continue
        item, size = places[number]
        axes.set_title(f"{_words(item)}, {size.replace('_', ' ')}", fontsize=7)
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
            shift = 0.18 * (place - (len(source.methods) - 1) / 2)
            drawn = look(source.methods, method, linestyle="")
            drawn["marker"] = drawn["marker"] or POINTS[method]
            axes.plot(chosen, np.arange(len(items)) + shift, **drawn)
            if here.seed.nunique() > 1:
                axes.plot(here.value, here["item"].map(items.index) + shift, **seed_points(drawn["color"]))
        axes.set(title=size.replace("_", " "), xlabel=label, yticks=range(len(items)), yticklabels=[])
        axes.grid(axis="y", linewidth=0.3)
    grid[0, 0].set_yticklabels([_words(item) for item in items])
    return figure


def blimp_by_phenomenon(source: Source) -> Figure:
    """Minimal-pair accuracy of each phenomenon at the last step."""
    figure = _final_bars(source, _phenomena(source)[0], accuracy_label(source).replace("\n", " "))
    for axes in figure.axes:
        axes.axvline(0.5, color="grey", linewidth=0.6)
    return figure


def gap_by_width(source: Source) -> Figure:
    """Each method's held-out loss less full rank's by width: seeds as points, means, and the line of the trend."""
    runs = source.runs if isinstance(source, Overlay) else source
    assert isinstance(runs, Runs)  # no held-out loss is published
    return draw_gaps(gaps(runs), source.methods, source.full_rank_method)


def draw_gaps(rows: pd.DataFrame, methods: list[str], full_rank: str | None) -> Figure:
    """Gaps (analysis.differences.gaps) of ``methods`` by width, with full rank as the line at 0."""
    figure = panels(1, 1, share_x=False)[0]
    (axes,) = figure.axes
    if full_rank:
        axes.axhline(0, **look(methods, full_rank, marker=""))
    for method in methods:
        here = rows[rows.method == method]
        if len(here):
            drawn = look(methods, method)
            axes.plot(here.d_model, here.gap, **seed_points(drawn["color"]) | {"markersize": 3})
            axes.plot(means := here.groupby("d_model").gap.mean(), **drawn | {"linestyle": ""})
            if len(means) > 1:
                fit = np.polyfit(np.log2(means.index), means, 1)
                axes.plot(means.index, np.polyval(fit, np.log2(means.index)), **drawn | {"marker": "", "label": "_"})
    widths = sorted(rows.d_model.unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(widths, [f"{width}" for width in widths])
    axes.set(xlabel="width (d_model)", ylabel="held-out loss\nover full rank (nats/token)")
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
