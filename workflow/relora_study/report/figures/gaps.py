"""Figures of the gap to full rank: over training, and by width."""

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...analysis.differences import gap_effects, gaps
from ...analysis.effects import Effect
from ...analysis.results import Runs, over_full_rank
from ...analysis.source import Overlay, Source, by_curve
from ..numbers import method_label, signed
from ..style import look, panels
from .parts import Named, mean_line, names_at_right, seed_points, smooth_loss

ABREAST = 2  # panels in a row, each with names beside it

Curves = dict[tuple[str, str], pd.DataFrame]


def gap_over_training(source: Source) -> Figure:
    """Training loss less full rank's on the same batch, by step; each line's name has the gap in held-out loss."""
    curves, shape = _curves(source), (-(-len(source.sizes) // ABREAST), min(len(source.sizes), ABREAST))
    figure, grid = panels(*shape, share_x=False, share_y="all")
    figure.set_figheight(0.7 + 2 * shape[0])
    for size, axes in zip_longest(source.sizes, grid.flat):
        if size is None:
            axes.set_axis_off()
        else:
            _draw_curves(source, size, axes, curves)
    effects = gap_effects(_ours(source))
    for size, axes in zip(source.sizes, grid.flat, strict=False):  # once every panel has widened the shared axis
        names_at_right(axes, list(_names(source, size, curves, effects)))
    for axes in grid[:, 0]:
        axes.set_ylabel("loss over full rank's\non the same batch (nats/token)")
    return figure


def _curves(source: Source) -> Curves:
    """The log over full rank of each size and method but full rank's; published losses are over the published."""
    parts = (source.runs, source.published) if isinstance(source, Overlay) else (source,)
    logs = [over_full_rank(part.table("log.csv"), part.full_rank_method) for part in parts]
    return by_curve(
        pd.concat([log[log.method != part.full_rank_method] for part, log in zip(parts, logs, strict=True)])
    )


def _draw_curves(source: Source, size: str, axes: Any, curves: Curves) -> None:
    if source.full_rank_method:
        axes.axhline(0, **look(source.methods, source.full_rank_method, marker=""))
    resets: set[int] = set()
    for method in source.methods:
        if (size, method) in curves:
            rows = curves[size, method]
            resets |= set(rows.step[rows.reset == 1])
            mean_line(axes, smooth_loss(rows), "seed", look(source.methods, method, marker=""))
    if resets:
        ticks = {"marker": "|", "linestyle": "", "color": "grey", "label": "_resets"}
        axes.plot(sorted(resets), np.zeros(len(resets)), transform=axes.get_xaxis_transform(), **ticks)
    axes.set(title=size.replace("_", " "), xlabel="optimizer step")


def _names(source: Source, size: str, curves: Curves, effects: Mapping[tuple[str, str], Effect]) -> Iterator[Named]:
    """The place, words and look of each line's name: at the gap in held-out loss, else where the line ends."""
    if full := source.full_rank_method:
        yield 0.0, method_label(full), {"gid": full}
    for method in source.methods:
        if (size, method) not in curves:
            continue
        drawn = {"gid": method, "color": look(source.methods, method)["color"]}
        gap = effects.get((size, method))
        if gap is not None and gap.seeds:
            yield gap.mean, f"{method_label(method)} {signed(gap.mean)}", drawn
        elif len(line := smooth_loss(curves[size, method]).groupby("step").value.mean().dropna()):
            yield line.iloc[-1], method_label(method), drawn


def _ours(source: Source) -> Runs:
    runs = source.runs if isinstance(source, Overlay) else source
    assert isinstance(runs, Runs)  # no held-out loss is published
    return runs


def gap_by_width(source: Source) -> Figure:
    """Each method's held-out loss less full rank's by width: seeds as points, means, and the line of the trend."""
    return draw_gaps(gaps(_ours(source)), source.methods, source.full_rank_method)


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
