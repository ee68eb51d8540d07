"""Figures of the training logs: loss, cost, learning rate, and what resets do."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..around_resets import around_resets, over_full_rank
from ..cost import device_hours, device_unit
from ..load import Results, measured
from ..published import NAMES, hours_a_step, loss_around_resets
from ..style import log_axis, look
from .parts import accuracy_label, grid_of, mean_line, smooth_loss


def training_curves(results: Results) -> Figure:
    """Training loss, held-out perplexity and minimal-pair accuracy by step."""
    return _curves(results, lambda size, method, steps: steps, "optimizer step")


def training_cost(results: Results) -> Figure:
    """The same by hours of the device that trained."""
    spent = device_hours(results)

    def hours(size: str, method: str, steps: pd.Series) -> pd.Series:
        if method in NAMES.values():
            return steps * hours_a_step(size, method)
        return steps.map(spent[size, method])

    return _curves(results, hours, device_unit(results))


def _curves(results: Results, place: Callable[[str, str, pd.Series], pd.Series], label: str) -> Figure:
    """Loss, perplexity and accuracy of every method, by what ``place`` makes of the steps of a size and method."""
    titles = ["train loss (nats/token)", "perplexity", accuracy_label(results)]
    figure, grid = grid_of(results, titles, titles)
    parts = (
        results.table("log.csv"),
        measured(results, "perplexity", "overall", "mean_text_perplexity"),
        measured(results, "minimal_pairs", "overall", "accuracy"),
    )
    for (row, column), axes in np.ndenumerate(grid):
        size = results.sizes[column]
        for method in results.methods:
            own = parts[row][(parts[row]["size"] == size) & (parts[row].method == method)]
            own = own if row else smooth_loss(own)
            drawn = look(results.methods, method, **({} if row else {"marker": ""}))
            mean_line(axes, own.assign(step=place(size, method, own.step)), "seed", drawn)
    for column in range(len(results.sizes)):
        grid[-1, column].set_xlabel(label)
        log_axis(grid[1, column])
        grid[2, column].axhline(0.5, color="grey", linewidth=0.6)
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
    """Loss and update norm around a merge; a mean over all resets but the first, every method at the same steps."""
    if results.published == "only":
        return _released_resets(results)
    titles = ["loss over full rank's, minus\nmean of ten before", "update norm over\nmean of ten before"]
    if results.baseline is None:
        titles[0] = "loss minus\nmean of ten before"
    figure, grid = grid_of(results, titles, titles)
    log = over_full_rank(results.own_table("log.csv"), results.baseline)
    for column, size in enumerate(results.sizes):
        here = log[log["size"] == size]
        at = sorted(here.step[here.reset == 1].unique())[1:]
        for method in here.method.unique():
            around = around_resets(here[here.method == method], at)
            for axes, name in zip(grid[:, column], ("loss", "update_norm"), strict=True):
                drawn = look(results.methods, method, marker="")
                mean_line(axes, around.rename(columns={name: "value"}), "reset_step", drawn)
        for axes in grid[:, column]:
            axes.axvline(0, color="grey", linewidth=0.6)
        log_axis(grid[1, column])
        grid[-1, column].set_xlabel("steps after the merge")
    return figure


def _released_resets(results: Results) -> Figure:
    figure, grid = grid_of(results, ["loss"], ["loss minus mean of\nfifty steps before"])
    for axes, size in zip(grid[0], results.sizes, strict=True):
        around = loss_around_resets(size).rename(columns={"loss": "value"})
        # Steps differ from reset to reset by a few, so that a mean needs bins: of ten steps, by their middle.
        around["step"] = (around.step // 10) * 10 + 5
        mean_line(axes, around, "reset_step", look(results.methods, NAMES["relora"]))
        axes.axvline(0, color="grey", linewidth=0.6)
        axes.set_xlabel("steps after the reset")
    return figure


def _log_lines(results: Results, grid: Any, columns: list[str]) -> None:
    log = results.table("log.csv")
    for (row, column), axes in np.ndenumerate(grid):
        for method in results.methods:
            own = log[(log["size"] == results.sizes[column]) & (log.method == method)]
            values = own.groupby("step")[columns[row]].mean().dropna()
            if len(values):
                axes.plot(values.index, values, **look(results.methods, method, marker="", linewidth=0.9))
