"""Figures of training: loss, cost, learning rate, and the steps around resets."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...analysis.source import Source, by_curve, measured, resets_of
from ..style import log_axis, look
from .parts import accuracy_label, draw_methods, grid_of, mean_line, smooth_loss, yardstick_lines

LOSS_TITLES = {  # by the number of steps before a reset, and whether full rank's loss was subtracted
    (10, True): "loss over full rank,\nminus mean of ten before",
    (10, False): "loss minus\nmean of ten before",
    (50, False): "loss minus mean of\nfifty steps before",
}


def training_curves(source: Source) -> Figure:
    """Training loss, held-out perplexity and minimal-pair accuracy by step."""
    return _curves(source, lambda size, method, steps: steps, "optimizer step")


def training_cost(source: Source) -> Figure:
    """Training loss, held-out perplexity and minimal-pair accuracy by device-hours, or minutes where all are short."""
    log = source.table("log.csv")
    longest = max(source.hours(*key, rows.step).max() for key, rows in by_curve(log).items())
    if longest >= 1:
        return _curves(source, source.hours, source.hour_unit)
    unit = source.hour_unit.replace("hours", "minutes")
    return _curves(source, lambda size, method, steps: 60 * source.hours(size, method, steps), unit)


def _curves(source: Source, place: Callable[[str, str, pd.Series], pd.Series], label: str) -> Figure:
    """Loss, perplexity and accuracy of every method; ``place`` gives the x values of steps of a size and method."""
    titles = ["train loss (nats/token)", "perplexity", accuracy_label(source)]
    figure, grid = grid_of(source, titles, titles)
    parts = (
        source.table("log.csv"),
        measured(source, "perplexity", "overall", "mean_text_perplexity"),
        measured(source, "minimal_pairs", "overall", "accuracy"),
    )
    curves = [by_curve(rows) for rows in parts]
    for (row, column), axes in np.ndenumerate(grid):
        for method in source.methods:
            key = (source.sizes[column], method)
            if key not in curves[row]:
                continue
            rows = curves[row][key] if row else smooth_loss(curves[row][key])
            drawn = look(source.methods, method, **({} if row else {"marker": ""}))
            mean_line(axes, rows.assign(step=place(*key, rows.step)), "seed", drawn)
    for column in range(len(source.sizes)):
        yardstick_lines(grid[0, column], source.yardsticks)
        grid[-1, column].set_xlabel(label)
        log_axis(grid[1, column])
        grid[2, column].axhline(0.5, color="grey", linewidth=0.6)
    return figure


def lr_schedules(source: Source) -> Figure:
    """The learning rate of every step, as logged."""
    figure, grid = grid_of(source, ["rate"], ["learning rate"])
    _log_lines(source, grid, ["learning_rate"])
    return figure


def adapter_gradients(source: Source) -> Figure:
    """Loss and gradient norm of the adapters at every step, with resets marked; a norm of 0 means dead adapters."""
    titles = ["train loss\n(nats/token)", "adapter gradient norm\n(linear below 0.01)"]
    figure, grid = grid_of(source, ["loss", "norm"], titles)
    _log_lines(source, grid, ["loss", "adapter_gradient_norm"])
    log = source.table("log.csv")
    for column, size in enumerate(source.sizes):
        grid[1, column].set_yscale("symlog", linthresh=0.01)
        for step in sorted(log.step[(log["size"] == size) & (log.reset == 1)].unique()):
            for axes in grid[:, column]:
                axes.axvline(step, color="grey", linewidth=0.4, alpha=0.6)
    return figure


def resets(source: Source) -> Figure:
    """Loss and update norm around resets, means over all resets but the first; every method at equal steps."""
    around = resets_of(source)
    titles = {"loss": LOSS_TITLES[around.before, around.over_full_rank]}
    if "update_norm" in around.rows:
        titles["update_norm"] = "update norm over\nmean of ten before"
    figure, grid = grid_of(source, list(titles), list(titles.values()))
    for (row, column), axes in np.ndenumerate(grid):
        rows = around.rows[around.rows["size"] == source.sizes[column]].rename(columns={list(titles)[row]: "value"})
        draw_methods(source, rows, axes, "reset_step", marker="")
        axes.axvline(0, color="grey", linewidth=0.6)
    for column in range(len(source.sizes)):
        if len(titles) > 1:
            log_axis(grid[1, column])
        grid[-1, column].set_xlabel("steps after the merge" if len(titles) > 1 else "steps after the reset")
    return figure


def _log_lines(source: Source, grid: Any, columns: list[str]) -> None:
    curves = by_curve(source.table("log.csv"))
    for (row, column), axes in np.ndenumerate(grid):
        for method in source.methods:
            if (key := (source.sizes[column], method)) in curves:
                values = curves[key].groupby("step")[columns[row]].mean().dropna()
                if len(values):
                    axes.plot(values.index, values, **look(source.methods, method, marker="", linewidth=0.9))
