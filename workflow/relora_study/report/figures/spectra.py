"""Figures of the learning dynamics: ranks and condition numbers, published and like for like."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ...analysis.adapter_pattern import adapter_shares, published_shares
from ...analysis.published_recipe import LABELS
from ...analysis.source import Source, adapts, full_rank, rank_ceiling, select
from ...config import Cell
from ...config.schedule import is_reset
from ..style import PUBLISHED, log_axis
from .parts import by_step, draw_methods, draw_readings, grid_of

CEILING: dict[str, Any] = {"color": "grey", "linestyle": ":", "linewidth": 0.8}
COMPONENTS = {"w2": "SwiGLU W2", "ov_authors": "OV (authors')", "v": "V", "o": "O"}


def _spectra(source: Source, quantity: str, metric: str, components: list[str], label: str) -> Figure:
    titles = [f"{label}\n{COMPONENTS[component]}" for component in components]
    figure, grid = grid_of(source, components, titles)
    readings = [(quantity, component, metric) for component in components]
    draw_readings(source, source.labelled(), grid, readings)
    for axes in grid.flat:
        if metric == "condition_number":
            log_axis(axes)
    return figure


def per_weights(source: Source) -> Figure:
    """Proportional effective rank (PER) of the weights, read as in the paper."""
    return _spectra(source, "weights", "per", ["w2", "ov_authors"], "PER")


def cn_weights(source: Source) -> Figure:
    """Condition number of the weights, read as in the paper."""
    return _spectra(source, "weights", "condition_number", ["w2", "ov_authors"], "condition number")


def per_updates(source: Source) -> Figure:
    """PER of the published updates, with the rank ceiling r / min(m, n) of the adapters."""
    figure = _spectra(source, "updates", "per", ["w2", "v", "o"], "PER")
    for column, size in enumerate(source.sizes):
        for row, component in enumerate(["w2", "v", "o"]):
            for ceiling in _ceilings(source, size, component):
                axes = figure.axes[row * len(source.sizes) + column]
                axes.axhline(ceiling, label="ceiling r/min(m, n)", **CEILING)
    return figure


def _ceilings(source: Source, size: str, component: str) -> list[float]:
    """The rank ceilings of ``component`` at ``size``, each once and in order."""
    cells = [cell for cell in source.cells.values() if cell.size_name == size and adapts(cell, component)]
    return sorted({rank_ceiling(cell, component) for cell in cells})


def cn_updates(source: Source) -> Figure:
    """Condition number of the published updates; the smallest singular value of an adapter product is round-off."""
    return _spectra(source, "updates", "condition_number", ["w2", "v", "o"], "condition number")


def first_last_layers(source: Source) -> Figure:
    """PER of W2 in the first and the last half of the layers."""
    figure, grid = grid_of(source, ["first", "last"], ["PER of W2\nfirst half", "PER of W2\nlast half"])
    rows = select(source.labelled(), "weights", "per")
    rows = rows[(rows.component == "w2") & (rows.layer >= 0)]  # published readings are means over layers
    for (row, column), axes in np.ndenumerate(grid):
        size = rows[rows["size"] == source.sizes[column]]
        draw_methods(source, size[(size.layer >= (size.layer.max() + 1) // 2) == bool(row)], axes)
    return figure


def adapter_pattern(source: Source) -> Figure:
    """PER of the adapters as a share of its ceiling, by cycle, beside the published curve of the nearest size."""
    components = {"v": "V", "o": "O", "w2": "SwiGLU W2"}
    figure, grid = grid_of(source, list(components), [f"PER over its ceiling\n{name}" for name in components.values()])
    shares = adapter_shares(source).rename(columns={"cycle": "step", "share": "value"})
    ours, published = shares[~shares.method.isin(LABELS.values())], published_shares()
    for (row, column), axes in np.ndenumerate(grid):
        size, component = source.sizes[column], list(components)[row]
        axes.axhline(1.0, **CEILING)
        panel = ours[(ours["size"] == size) & (ours.component == component)]
        draw_methods(source, panel, axes, "seed")
        near = panel.near.iloc[0] if len(panel) else size
        curve = published[(published["size"] == near) & (published.component == component)]
        axes.plot(curve.cycle, curve.share, **{**PUBLISHED[LABELS["relora"]], "label": LABELS["relora"]})
        if row == len(components) - 1:
            axes.set_xlabel("cycle")
    return figure


def update_rank(source: Source) -> Figure:
    """Effective rank of the net update of W2 over one cycle and since step 0, with the bound that resets set."""
    readings = [("cycle_update", "w2", "effective_rank"), ("cumulative_update", "w2", "effective_rank")]
    figure, grid = by_step(source, readings, ["effective rank\nof a cycle's update", "effective rank\nsince step 0"])
    for column, size in enumerate(source.sizes):
        for cell in source.cells.values():
            if not isinstance(cell, Cell) or cell.size_name != size:
                continue
            if cell.method.restarts and _moves_by_adapters_alone(cell):
                steps = np.arange(0, cell.train.steps + 1)
                so_far = np.cumsum([is_reset(cell.method, int(step)) for step in steps])
                ceiling = np.minimum((so_far + 1) * cell.method.rank, full_rank(cell, "w2"))
                grid[1, column].plot(steps, ceiling, label="rank times cycles begun", **CEILING)
    return figure


def _moves_by_adapters_alone(cell: Cell) -> bool:
    """Whether W2 moves by adapter products of rank r alone."""
    return adapts(cell, "w2") and not cell.method.full_rank_steps


def cycle_overlap(source: Source) -> Figure:
    """Overlap of the leading directions of W2's net updates in successive cycles, from 0 (none) to 1 (equal)."""
    readings = [("cycle_update", "w2", "overlap_left"), ("cycle_update", "w2", "overlap_right")]
    figure, grid = by_step(source, readings, ["overlap of outputs", "overlap of inputs"])
    for axes in grid.flat:
        axes.set_ylim(0, 1)
    return figure


def cka(source: Source) -> Figure:
    """Linear CKA of layer outputs with the last checkpoint, and the mean cosine of tokens' outputs (anisotropy)."""
    readings = [
        ("hidden_states", "layer_output", "cka_with_last"),
        ("hidden_states", "layer_output", "mean_cosine"),
    ]
    return by_step(source, readings, ["CKA with the last", "mean cosine"])[0]


def merges(source: Source) -> Figure:
    """Jump of the loss on the fixed batch at a merge, and the share of the adapter product that the merge loses."""
    readings = [("merge", "model", "loss_jump"), ("merge", "model", "update_lost")]
    return by_step(source, readings, ["loss jump\n(nats/token)", "share of the\nupdate lost"], over="seed")[0]


def gradients(source: Source) -> Figure:
    """PER of the gradients with respect to the effective weights, like for like: one batch and equal steps."""
    readings = [("gradients", component, "per") for component in ("w2", "v", "o")]
    return by_step(source, readings, [f"PER of gradients\n{COMPONENTS[component]}" for _, component, _ in readings])[0]


def gradient_conditions(source: Source) -> Figure:
    """Condition number of the gradients with respect to the effective weights."""
    readings = [("gradients", component, "condition_number") for component in ("w2", "v", "o")]
    titles = [f"condition number\n{COMPONENTS[component]}" for _, component, _ in readings]
    figure, grid = by_step(source, readings, titles)
    for axes in grid.flat:
        log_axis(axes)
    return figure


def ov_circuits(source: Source) -> Figure:
    """The OV circuit of the effective weights, in the authors' form and in the usual form W_O W_V of each head."""
    readings = [("ov_authors", "per"), ("ov_circuit", "per_of_rank"), ("ov_circuit", "condition_number")]
    titles = ["PER\nOV (authors')", "PER over rank\nOV circuit", "condition number\nOV circuit"]
    figure, grid = by_step(source, [("effective_weights", *reading) for reading in readings], titles)
    for axes in grid[2]:
        log_axis(axes)
    return figure


def sparsity(source: Source) -> Figure:
    """Gini index, Hoyer sparsity and Frobenius norm of the effective W2."""
    metrics = ["gini", "hoyer", "frobenius_norm"]
    readings = [("effective_weights", "w2", metric) for metric in metrics]
    return by_step(source, readings, ["Gini of W2", "Hoyer of W2", "norm of W2"])[0]
