"""What is read at each checkpoint of a cell, and the long table that it becomes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from ..config import Cell, read_section
from ..errors import UserError
from ..train.checkpoints import list_checkpoints, load_adapters, load_model, read_metadata
from .circuits import authors_ov, ov_circuit_factors
from .gradients import gradients
from .low_rank import low_rank_spectrum
from .matrices import Factors, Matrices, adapter_factors, frozen_base, weight_matrices
from .spectrum import measure, reason, spectrum

COLUMNS = ["step", "component", "layer", "quantity", "metric", "value", "reason"]


@dataclass(frozen=True)
class Reading:
    """Spectra of one component in every layer: [layers, k], or [layers, heads, k] to be averaged over heads."""

    quantity: str
    component: str
    values: Tensor
    shape: tuple[int, int]
    factored: bool = False

    def rows(self, step: int) -> Iterator[tuple[Any, ...]]:
        """One row a layer and metric; a layer whose metrics are NaN says why."""
        metrics = measure(self.values, self.shape, self.factored)
        for layer, values in enumerate(self.values):
            reasons = (reason(one) for one in values.reshape(-1, values.shape[-1]))
            why = next(filter(None, reasons), "")
            for metric, found in metrics.items():
                yield step, self.component, layer, self.quantity, metric, found[layer].mean().item(), why


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint's matrices by component, [layers, m, n] each; ``base`` is W and ``effective`` W + s B A."""

    step: int
    head_dim: int
    effective: Matrices
    base: Matrices
    gradients: Matrices
    factors: dict[str, Factors] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, batch: Tensor) -> Self:
        """Read the checkpoint and take the gradients of ``batch``, int64 [sequences, context_length + 1]."""
        metadata, model = read_metadata(path), load_model(path)
        effective = weight_matrices(model)
        factors = adapter_factors(load_adapters(path), model.config.num_hidden_layers)
        return cls(
            step=metadata.step,
            head_dim=effective["o"].shape[-1] // model.config.num_attention_heads,
            effective=effective,
            base=frozen_base(effective, factors, metadata.scale),
            gradients=gradients(model, batch),
            factors=factors,
        )


def dense(quantity: str, matrices: Matrices, precision: torch.dtype = torch.float64) -> Iterator[Reading]:
    """Readings of whole matrices, one a component."""
    for component, matrix in matrices.items():
        rows, columns = matrix.shape[-2:]
        yield Reading(quantity, component, spectrum(matrix, precision), (rows, columns))


def weights(quantity: str, matrices: Matrices, head_dim: int) -> Iterator[Reading]:
    """Readings of weights: SwiGLU's second matrix, and both meanings of an OV circuit."""
    value, output, width = matrices["v"].double(), matrices["o"].double(), matrices["o"].shape[-2]
    yield from dense(quantity, {"w2": matrices["w2"], "ov_authors": authors_ov(value, output, head_dim)})
    circuits = low_rank_spectrum(*ov_circuit_factors(value, output, head_dim))
    yield Reading(quantity, "ov_circuit", circuits, (width, width), factored=True)


def updates(checkpoint: Checkpoint) -> Iterator[Reading]:
    """Readings of updates as published, in float32: B A of the live adapters, or without adapters the gradients.

    In float32 the smallest singular values of B A are round-off, and so is the published condition number.
    `updates_exact` reads the same adapters from their factors, in float64.
    """
    if not checkpoint.factors:
        yield from dense("updates", checkpoint.gradients, torch.float32)
    for component, (down, up) in checkpoint.factors.items():
        yield from dense("updates", {component: up.float() @ down.float()}, torch.float32)
        shape = (up.shape[-2], down.shape[-1])
        yield Reading("updates_exact", component, low_rank_spectrum(up, down), shape, factored=True)


def difference(quantity: str, now: Matrices, then: Matrices) -> Iterator[Reading]:
    """Readings of what changed in the effective weights from ``then`` to ``now``."""
    yield from dense(quantity, {component: now[component].double() - then[component].double() for component in now})


def readings(checkpoint: Checkpoint) -> Iterator[Reading]:
    """All readings that one checkpoint gives by itself."""
    yield from weights("weights", checkpoint.base, checkpoint.head_dim)
    yield from weights("effective_weights", checkpoint.effective, checkpoint.head_dim)
    yield from updates(checkpoint)
    yield from dense("gradients", checkpoint.gradients)


def cell_readings(folders: Iterable[Path], batch: Tensor, cycle: int) -> Iterator[tuple[int, Reading]]:
    """Every reading of a cell's checkpoints, with its step; ``folders`` are in the order of their steps.

    ``cycle`` is the number of steps between the regular checkpoints: `net_update` is read from each multiple
    of it to the next, `cumulative_update` from the first checkpoint, step 0, to every other.
    """
    start: Matrices = {}
    regular: tuple[int, Matrices] = (0, {})
    for folder in folders:
        checkpoint = Checkpoint.read(folder, batch)
        step, effective = checkpoint.step, checkpoint.effective
        found = [readings(checkpoint)]
        if start:
            found.append(difference("cumulative_update", effective, start))
        if start and step - regular[0] == cycle:
            found.append(difference("net_update", effective, regular[1]))
        yield from ((step, reading) for group in found for reading in group)
        start = start or effective
        regular = (step, effective) if step % cycle == 0 else regular


def cell_table(cell_dir: Path, batch: Tensor) -> pd.DataFrame:
    """The cell's dynamics.csv: one row a step, component, layer, quantity and metric.

    Raises :class:`UserError` where the cell has no checkpoint of step 0 to measure updates from.
    """
    cell = read_section(Cell, cell_dir / "config.yaml")
    checkpoints = list_checkpoints(cell_dir)
    if 0 not in checkpoints:
        raise UserError(f"{cell_dir / 'checkpoints'} holds no checkpoint of step 0; train the cell {cell.name} again")
    folders = [checkpoints[step] for step in sorted(checkpoints)]
    progress = tqdm(folders, desc=f"dynamics {cell.name}", unit="checkpoint", disable=None)
    found = cell_readings(progress, batch, cell.train.checkpoint_every)
    return pd.DataFrame([line for step, reading in found for line in reading.rows(step)], columns=COLUMNS)
