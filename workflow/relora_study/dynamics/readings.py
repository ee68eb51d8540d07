"""What is read at a checkpoint, and between checkpoints, as rows of a long table."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from ..config import Method
from ..model.checkpoints import load_adapters, load_model, read_metadata
from .circuits import authors_ov, ov_circuit_factors
from .gradients import gradients
from .low_rank import low_rank_spectrum
from .matrices import Factors, Matrices, adapter_factors, frozen_base, weight_matrices
from .merges import merge_effects
from .representations import hidden_states, mean_cosine
from .sparsity import gini, hoyer
from .spectrum import reason, spectral_metrics, spectrum
from .subspaces import leading_subspaces, overlap

STATES_TOKENS = 1024


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
        metrics = spectral_metrics(self.values, self.shape, self.factored)
        for layer, values in enumerate(self.values):
            reasons = (reason(one) for one in values.reshape(-1, values.shape[-1]))
            why = next(filter(None, reasons), "")
            for metric, found in metrics.items():
                yield step, self.component, layer, self.quantity, metric, found[layer].mean().item(), why


@dataclass(frozen=True)
class Values:
    """One metric of one component, [layers], that is no spectrum's; a single number where it is of the whole model."""

    quantity: str
    component: str
    metric: str
    values: Tensor

    def rows(self, step: int) -> Iterator[tuple[Any, ...]]:
        """One row a layer; layer -1 stands for the whole model."""
        for layer, value in enumerate(self.values) if self.values.ndim else [(-1, self.values)]:
            why = "" if torch.isfinite(value) else "nothing to compare"
            yield step, self.component, layer, self.quantity, self.metric, value.item(), why


AnyReading = Reading | Values


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint's matrices by component, [layers, m, n] each; ``base`` is W and ``effective`` W + s B A."""

    step: int
    head_dim: int
    effective: Matrices
    base: Matrices
    gradients: Matrices
    adapted: bool = False  # has adapters, though perhaps of none of the components that are read
    factors: dict[str, Factors] = field(default_factory=dict)
    states: Tensor = field(default_factory=lambda: torch.empty(0))
    merge: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, batch: Tensor, method: Method) -> Self:
        """Read the checkpoint, and what its model does with ``batch``, int64 [sequences, context_length + 1].

        All is done on the device of ``batch``.
        """
        metadata, device = read_metadata(path), batch.device
        model, adapters = load_model(path, device), load_adapters(path, device)
        effective, states = weight_matrices(model), hidden_states(model, few_tokens(batch))
        taken = gradients(model, batch)
        factors = adapter_factors(adapters, model.config.num_hidden_layers)
        return cls(
            states=states,
            merge=merge_effects(model, adapters, method, batch) if adapters else {},
            step=metadata.step,
            head_dim=effective["o"].shape[-1] // model.config.num_attention_heads,
            effective=effective,
            base=frozen_base(effective, factors, metadata.scale),
            gradients=taken,
            adapted=bool(adapters),
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
    if not checkpoint.adapted:
        yield from dense("updates", checkpoint.gradients, torch.float32)
    for component, (down, up) in checkpoint.factors.items():
        yield from dense("updates", {component: up.float() @ down.float()}, torch.float32)
        shape = (up.shape[-2], down.shape[-1])
        yield Reading("updates_exact", component, low_rank_spectrum(up, down), shape, factored=True)


def difference(now: Matrices, then: Matrices) -> Matrices:
    """What changed from ``then`` to ``now``, in float64."""
    return {component: now[component].double() - then[component].double() for component in now}


def sparsity(matrices: Matrices) -> Iterator[Values]:
    """Gini and Hoyer of the entries of the effective weights."""
    for component, matrix in matrices.items():
        for metric, measured in (("gini", gini), ("hoyer", hoyer)):
            yield Values("effective_weights", component, metric, measured(matrix.flatten(1)))


def overlaps(quantity: str, now: Matrices, before: Matrices, dimensions: int) -> Iterator[Values]:
    """How far the leading directions of one window's update are those of the window before it."""
    for component in now:
        subspaces = zip(
            ("overlap_left", "overlap_right"),
            leading_subspaces(now[component], dimensions),
            leading_subspaces(before[component], dimensions),
            strict=True,
        )
        for metric, one, other in subspaces:
            yield Values(quantity, component, metric, overlap(one, other))


def readings(checkpoint: Checkpoint) -> Iterator[AnyReading]:
    """All readings that one checkpoint gives by itself."""
    yield from sparsity(checkpoint.effective)
    yield Values("hidden_states", "layer_output", "mean_cosine", mean_cosine(checkpoint.states))
    for metric, value in checkpoint.merge.items():
        yield Values("merge", "model", metric, torch.tensor(value))
    yield from weights("weights", checkpoint.base, checkpoint.head_dim)
    yield from weights("effective_weights", checkpoint.effective, checkpoint.head_dim)
    yield from updates(checkpoint)
    yield from dense("gradients", checkpoint.gradients)


def few_tokens(batch: Tensor) -> Tensor:
    """The first sequences of ``batch`` [sequences, context_length + 1], about 1,024 tokens, for activations."""
    return batch[: max(1, STATES_TOKENS // (batch.shape[1] - 1))]
