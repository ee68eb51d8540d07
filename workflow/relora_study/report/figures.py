"""The figures, one function each; ``FIGURES`` holds them by name."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..train.schedule import is_reset
from .load import Results, measured, published_readings, regular_readings
from .style import look, panels

CEILING: dict[str, Any] = {"color": "grey", "linestyle": ":", "linewidth": 0.8}
COMPONENTS = {"w2": "SwiGLU W2", "ov_authors": "OV (authors')", "v": "V", "o": "O"}


def _mean_line(axes: Any, rows: pd.DataFrame, over: str, drawn: dict[str, Any]) -> None:
    """Mean of ``value`` by step, with a 95 % normal interval of the mean over ``over`` where there are several."""
    means = rows.groupby("step").value.mean().dropna()
    if means.empty:
        return
    axes.plot(means.index, means, **drawn)
    if rows[over].nunique() > 1:
        error = 1.96 * rows.groupby("step").value.sem()
        error = error.reindex(means.index)
        axes.fill_between(means.index, means - error, means + error, color=drawn["color"], alpha=0.15, linewidth=0)


def _grid(results: Results, rows: list[str], titles: list[str]) -> tuple[Figure, Any]:
    """A panel for each of ``rows`` and each size, labelled at the edges."""
    figure, grid = panels(len(rows), len(results.sizes))
    for column, size in enumerate(results.sizes):
        grid[0, column].set_title(size)
        grid[-1, column].set_xlabel("optimizer step")
    for axes, title in zip(grid[:, 0], titles, strict=True):
        axes.set_ylabel(title)
    return figure, grid


def training_curves(results: Results) -> Figure:
    """Training loss, held-out perplexity and minimal-pair accuracy by step."""
    figure, grid = _grid(results, ["loss", "ppl", "pairs"], ["train loss (nats/token)", "perplexity", "accuracy"])
    log = results.table("log.csv")
    perplexity = measured(results, "perplexity", "macro_average", "token_perplexity")
    accuracy = measured(results, "minimal_pairs", "overall", "accuracy")
    for column, size in enumerate(results.sizes):
        for method in results.methods:
            drawn = look(results.methods, method)
            for axes, rows in zip(grid[:, column], (log, perplexity, accuracy), strict=True):
                own = rows[(rows["size"] == size) & (rows.method == method)]
                if rows is log:
                    smooth = own.groupby("step").loss.mean().rolling(9, center=True, min_periods=1).mean()
                    axes.plot(smooth.index, smooth, **{**drawn, "marker": ""})
                else:
                    _mean_line(axes, own, "seed", drawn)
        grid[1, column].set_yscale("log")
        grid[2, column].axhline(0.5, color="grey", linewidth=0.6)
    return figure


def _spectra(results: Results, quantity: str, metric: str, components: list[str], label: str) -> Figure:
    titles = [f"{label}\n{COMPONENTS[component]}" for component in components]
    figure, grid = _grid(results, components, titles)
    rows = published_readings(results, quantity, metric)
    for (row, column), axes in np.ndenumerate(grid):
        chosen = rows[(rows.component == components[row]) & (rows["size"] == results.sizes[column])]
        for method in results.methods:
            _mean_line(axes, chosen[chosen.method == method], "layer", look(results.methods, method))
        if metric == "condition_number":
            axes.set_yscale("log")
    return figure


def per_weights(results: Results) -> Figure:
    """Proportional effective rank of the weights, as published."""
    return _spectra(results, "weights", "per", ["w2", "ov_authors"], "PER")


def cn_weights(results: Results) -> Figure:
    """Condition number of the weights, as published."""
    return _spectra(results, "weights", "condition_number", ["w2", "ov_authors"], "condition number")


def per_updates(results: Results) -> Figure:
    """Proportional effective rank of the updates, as published, with the adapters' ceiling r / min(m, n)."""
    figure = _spectra(results, "updates", "per", ["w2", "v", "o"], "PER")
    for column, size in enumerate(results.sizes):
        for row, component in enumerate(["w2", "v", "o"]):
            for ceiling in _ceilings(results, size, component):
                axes = figure.axes[row * len(results.sizes) + column]
                axes.axhline(ceiling, label="ceiling r/min(m, n)", **CEILING)
    return figure


def _ceilings(results: Results, size: str, component: str) -> set[float]:
    """r / min(m, n) of ``component`` for each rank that the study trains at ``size``."""
    cells = [cell for cell in results.cells.values() if cell.size_name == size and cell.method.rank]
    narrow = component == "v"
    return {
        cell.method.rank / (cell.size.num_key_value_heads * cell.size.head_dim if narrow else cell.size.d_model)
        for cell in cells
    }


def cn_updates(results: Results) -> Figure:
    """Condition number of the updates, as published: for adapters the smallest singular value is round-off."""
    return _spectra(results, "updates", "condition_number", ["w2", "v", "o"], "condition number")


def first_last_layers(results: Results) -> Figure:
    """PER of W2 in the first and the last half of the layers."""
    figure, grid = _grid(results, ["first", "last"], ["PER of W2\nfirst half", "PER of W2\nlast half"])
    rows = published_readings(results, "weights", "per")
    rows = rows[rows.component == "w2"]
    for (row, column), axes in np.ndenumerate(grid):
        own = rows[rows["size"] == results.sizes[column]]
        half = own[(own.layer >= (own.layer.max() + 1) // 2) == bool(row)]
        for method in results.methods:
            _mean_line(axes, half[half.method == method], "layer", look(results.methods, method))
    return figure


def _by_step(results: Results, readings: list[tuple[str, str, str]], titles: list[str]) -> tuple[Figure, Any]:
    """A row of panels for each (quantity, component, metric) at the regular checkpoints; mean and band over layers."""
    figure, grid = _grid(results, titles, titles)
    rows = regular_readings(results)
    for (row, column), axes in np.ndenumerate(grid):
        quantity, component, metric = readings[row]
        chosen = rows[(rows.quantity == quantity) & (rows.component == component) & (rows.metric == metric)]
        chosen = chosen[chosen["size"] == results.sizes[column]]
        for method in results.methods:
            _mean_line(axes, chosen[chosen.method == method], "layer", look(results.methods, method))
    return figure, grid


def update_rank(results: Results) -> Figure:
    """Effective rank of what the effective W2 moved, over one cycle and since the start, beside what resets allow."""
    readings = [("net_update", "w2", "effective_rank"), ("cumulative_update", "w2", "effective_rank")]
    figure, grid = _by_step(results, readings, ["effective rank\nof a cycle's update", "effective rank\nsince step 0"])
    for column, size in enumerate(results.sizes):
        for cell in results.cells.values():
            if cell.size_name == size and cell.method.reset_period:
                steps = np.arange(0, cell.train.steps + 1)
                so_far = np.cumsum([is_reset(cell.method, int(step)) for step in steps])
                ceiling = np.minimum((so_far + 1) * cell.method.rank, cell.size.d_model)
                grid[1, column].plot(steps, ceiling, label="rank times cycles begun", **CEILING)
    return figure


def cycle_overlap(results: Results) -> Figure:
    """Overlap of the leading directions of W2's update in one cycle with the cycle before: 1 the same, 0 none."""
    readings = [("net_update", "w2", "overlap_left"), ("net_update", "w2", "overlap_right")]
    figure, grid = _by_step(results, readings, ["overlap of outputs", "overlap of inputs"])
    for axes in grid.flat:
        axes.set_ylim(0, 1)
    return figure


def cka(results: Results) -> Figure:
    """Linear CKA of each checkpoint's layer outputs with the last checkpoint's, and their mean cosine (anisotropy)."""
    readings = [
        ("hidden_states", "layer_output", "cka_with_last"),
        ("hidden_states", "layer_output", "mean_cosine"),
    ]
    return _by_step(results, readings, ["CKA with the last", "mean cosine"])[0]


def merges(results: Results) -> Figure:
    """Jump of the held-out loss at a merge, and the share of the adapters' update that it loses."""
    readings = [("merge", "model", "loss_jump"), ("merge", "model", "update_lost")]
    return _by_step(results, readings, ["loss jump\n(nats/token)", "share of the\nupdate lost"])[0]


def training_cost(results: Results) -> Figure:
    """Training loss by the hours that training took, on the device of the run."""
    figure, grid = _grid(results, ["loss"], ["train loss (nats/token)"])
    logs, times = results.table("log.csv"), results.table("timing.csv")
    for axes, size in zip(grid[0], results.sizes, strict=True):
        axes.set_xlabel("minutes of training")
        for method in results.methods:
            own, spent = (rows[(rows["size"] == size) & (rows.method == method)] for rows in (logs, times))
            smooth = own.groupby("step").loss.mean().rolling(9, center=True, min_periods=1).mean()
            minutes = spent.groupby("step").seconds.mean().cumsum() / 60
            axes.plot(minutes, smooth, **look(results.methods, method, marker=""))
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
            axes.plot(chosen, np.arange(len(items)) + shift, **look(results.methods, method, linestyle=""))
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


def lr_schedules(results: Results) -> Figure:
    """The learning rate of every step, as logged."""
    figure, grid = _grid(results, ["rate"], ["learning rate"])
    _log_lines(results, grid, ["learning_rate"])
    return figure


def resets(results: Results) -> Figure:
    """Loss and the adapters' gradient norm at every step, resets marked; exactly 0 means dead adapters."""
    titles = ["train loss\n(nats/token)", "adapter gradient norm"]
    figure, grid = _grid(results, ["loss", "norm"], titles)
    _log_lines(results, grid, ["loss", "adapter_gradient_norm"])
    log = results.table("log.csv")
    for column, size in enumerate(results.sizes):
        for step in sorted(log.step[(log["size"] == size) & (log.reset == 1)].unique()):
            for axes in grid[:, column]:
                axes.axvline(step, color="grey", linewidth=0.4, alpha=0.6)
    return figure


def _log_lines(results: Results, grid: Any, columns: list[str]) -> None:
    log = results.table("log.csv")
    for (row, column), axes in np.ndenumerate(grid):
        for method in results.methods:
            own = log[(log["size"] == results.sizes[column]) & (log.method == method)]
            values = own.groupby("step")[columns[row]].mean().dropna()
            if len(values):
                axes.plot(values.index, values, **look(results.methods, method, marker="", linewidth=0.9))


FIGURES: dict[str, Callable[[Results], Figure]] = {
    function.__name__: function
    for function in (
        training_curves,
        per_weights,
        cn_weights,
        per_updates,
        cn_updates,
        first_last_layers,
        minimal_pairs_by_phenomenon,
        perplexity_by_domain,
        lr_schedules,
        resets,
        update_rank,
        cycle_overlap,
        cka,
        merges,
        training_cost,
    )
}
