"""Figures of the training logs: loss, cost, learning rate, and what resets do."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..around_resets import around_resets
from ..load import Results, measured
from ..style import look
from .parts import grid_of, mean_line, smooth_loss


def training_curves(results: Results) -> Figure:
    """Training loss, held-out perplexity and minimal-pair accuracy by step."""
    figure, grid = grid_of(results, ["loss", "ppl", "pairs"], ["train loss (nats/token)", "perplexity", "accuracy"])
    log = results.table("log.csv")
    perplexity = measured(results, "perplexity", "overall", "mean_text_perplexity")
    accuracy = measured(results, "minimal_pairs", "overall", "accuracy")
    for column, size in enumerate(results.sizes):
        for method in results.methods:
            drawn = look(results.methods, method)
            for axes, rows in zip(grid[:, column], (log, perplexity, accuracy), strict=True):
                own = rows[(rows["size"] == size) & (rows.method == method)]
                if rows is log:
                    smooth = smooth_loss(own)
                    axes.plot(smooth.index, smooth, **{**drawn, "marker": ""})
                else:
                    mean_line(axes, own, "seed", drawn)
        grid[1, column].set_yscale("log")
        grid[2, column].axhline(0.5, color="grey", linewidth=0.6)
    return figure


def training_cost(results: Results) -> Figure:
    """Training loss by the hours that training took, on the device of the run."""
    figure, grid = grid_of(results, ["loss"], ["train loss (nats/token)"])
    logs, times = results.table("log.csv"), results.own_table("timing.csv")
    for axes, size in zip(grid[0], results.sizes, strict=True):
        axes.set_xlabel("minutes of training")
        for method in logs[logs.seed >= 0].method.unique():
            own, spent = (rows[(rows["size"] == size) & (rows.method == method)] for rows in (logs, times))
            smooth = smooth_loss(own)
            minutes = spent.groupby("step").seconds.mean().cumsum() / 60
            axes.plot(minutes, smooth, **look(results.methods, method, marker=""))
    return figure


def lr_schedules(results: Results) -> Figure:
    """The learning rate of every step, as logged."""
    figure, grid = grid_of(results, ["rate"], ["learning rate"])
    _log_lines(results, grid, ["learning_rate"])
    return figure


def adapter_gradients(results: Results) -> Figure:
    """Loss and the adapters' gradient norm at every step, resets marked; exactly 0 means dead adapters."""
    titles = ["train loss\n(nats/token)", "adapter gradient norm"]
    figure, grid = grid_of(results, ["loss", "norm"], titles)
    _log_lines(results, grid, ["loss", "adapter_gradient_norm"])
    log = results.table("log.csv")
    for column, size in enumerate(results.sizes):
        for step in sorted(log.step[(log["size"] == size) & (log.reset == 1)].unique()):
            for axes in grid[:, column]:
                axes.axvline(step, color="grey", linewidth=0.4, alpha=0.6)
    return figure


def resets(results: Results) -> Figure:
    """What a reset does to the loss and to the gradient around it; a mean over all resets but the first."""
    titles = ["loss minus mean of\nten steps before", "gradient norm over\nmean of ten before"]
    figure, grid = grid_of(results, titles, titles)
    log = results.own_table("log.csv")
    for column, size in enumerate(results.sizes):
        for method in results.methods:
            around = around_resets(log[(log["size"] == size) & (log.method == method)])
            for axes, name in zip(grid[:, column], ("loss", "gradient_norm"), strict=True):
                drawn = look(results.methods, method, marker="")
                mean_line(axes, around.rename(columns={name: "value"}), "reset_step", drawn)
        for axes in grid[:, column]:
            axes.axvline(0, color="grey", linewidth=0.6)
        grid[-1, column].set_xlabel("steps after the reset")
    return figure


def _log_lines(results: Results, grid: Any, columns: list[str]) -> None:
    log = results.table("log.csv")
    for (row, column), axes in np.ndenumerate(grid):
        for method in results.methods:
            own = log[(log["size"] == results.sizes[column]) & (log.method == method)]
            values = own.groupby("step")[columns[row]].mean().dropna()
            if len(values):
                axes.plot(values.index, values, **look(results.methods, method, marker="", linewidth=0.9))
