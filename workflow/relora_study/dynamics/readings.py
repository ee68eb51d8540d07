"""Take readings of one checkpoint, or of the difference between two, as rows of a long table."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from ..config import Method
from ..model.checkpoints import load_adapters, load_model, read_metadata
from ..model.decoder import head_dim
from .circuits import authors_ov, ov_circuit_factors
from .gradients import gradients
from .low_rank import low_rank_spectrum
from .matrices import Factors, Matrices, adapter_factors, frozen_base, weight_matrices
from .merges import merge_effects
from .representations import layer_states, mean_cosine
from .sparsity import gini, hoyer
from .spectrum import reason, spectral_metrics, spectrum
from .subspaces import leading_subspaces, overlap

STATES_TOKENS = 1024


@dataclass(frozen=True)
class Reading:
    """The spectra of one component: ``values`` [layers, k], or [layers, heads, k] to average over heads.

    ``shape`` is the shape (m, n) of each matrix. ``factored`` says that the spectra come from factors of rank k.
    """

    quantity: str
    component: str
    values: Tensor
    shape: tuple[int, int]
    factored: bool = False

    def rows(self, step: int) -> Iterator[tuple[Any, ...]]:
        """Yield a row for each layer and metric; the last entry says why a metric is NaN."""
        metrics = spectral_metrics(self.values, self.shape, self.factored)
        for layer, values in enumerate(self.values):
            reasons = (reason(spectrum_of_head) for spectrum_of_head in values.reshape(-1, values.shape[-1]))
            why = next(filter(None, reasons), "")
            for metric, by_layer in metrics.items():
                yield step, self.component, layer, self.quantity, metric, by_layer[layer].mean().item(), why


@dataclass(frozen=True)
class Values:
    """A metric that comes from no spectrum: ``values`` [layers] of a component, or one number for the whole model."""

    quantity: str
    component: str
    metric: str
    values: Tensor

    def rows(self, step: int) -> Iterator[tuple[Any, ...]]:
        """Yield a row for each layer; layer -1 stands for the whole model."""
        for layer, value in enumerate(self.values) if self.values.ndim else [(-1, self.values)]:
            why = "" if torch.isfinite(value) else "nothing to compare"
            yield step, self.component, layer, self.quantity, self.metric, value.item(), why


AnyReading = Reading | Values


@dataclass(frozen=True)
class Checkpoint:
    """The matrices of one checkpoint by component, [layers, m, n] each: ``base`` is W, ``effective`` is W + s B A.

    ``states`` are hidden states on a few tokens. ``merge`` holds the effects of a merge, by metric.
    """

    step: int
    head_dim: int
    effective: Matrices
    base: Matrices
    gradients: Matrices
    adapted: bool = False  # the model has adapters, perhaps on other components
    factors: dict[str, Factors] = field(default_factory=dict)
    states: Tensor = field(default_factory=lambda: torch.empty(0))
    merge: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, batch: Tensor, method: Method) -> Self:
        """Read the checkpoint in ``path``, and run its model on ``batch``, int64 [sequences, context_length + 1].

        All work is done on the device of ``batch``.
        """
        metadata, device = read_metadata(path), batch.device
        model, adapters = load_model(path, device), load_adapters(path, device)
        effective, states = weight_matrices(model), layer_states(model, few_tokens(batch))
        taken = gradients(model, batch)
        factors = adapter_factors(adapters, model.config)
        return cls(
            states=states,
            merge=merge_effects(model, adapters, method, batch) if adapters else {},
            step=metadata.step,
            head_dim=head_dim(model.config),
            effective=effective,
            base=frozen_base(effective, factors, metadata.scale),
            gradients=taken,
            adapted=bool(adapters),
            factors=factors,
        )


def dense(quantity: str, matrices: Matrices, precision: torch.dtype = torch.float64) -> Iterator[Reading]:
    """Read the spectra of whole matrices, by component."""
    for component, matrix in matrices.items():
        rows, columns = matrix.shape[-2:]
        yield Reading(quantity, component, spectrum(matrix, precision), (rows, columns))


def weights(quantity: str, matrices: Matrices, head_dim: int) -> Iterator[Reading]:
    """Read the spectra of weights: the second matrix of SwiGLU, and the OV circuit in both meanings."""
    value, output, width = matrices["v"].double(), matrices["o"].double(), matrices["o"].shape[-2]
    yield from dense(quantity, {"w2": matrices["w2"], "ov_authors": authors_ov(value, output, head_dim)})
    circuits = low_rank_spectrum(*ov_circuit_factors(value, output, head_dim))
    yield Reading(quantity, "ov_circuit", circuits, (width, width), factored=True)


def updates(checkpoint: Checkpoint) -> Iterator[Reading]:
    """Read updates as the paper defines them: B A of the present adapters, or the gradients without adapters.

    The paper took them in float32, where the smallest singular values of B A are round-off, and so is the published
    condition number. `updates_exact` reads B A from its factors in float64, free of round-off.
    """
    if not checkpoint.adapted:
        yield from dense("updates", checkpoint.gradients, torch.float32)
    for component, (down, up) in checkpoint.factors.items():
        yield from dense("updates", {component: up.float() @ down.float()}, torch.float32)
        shape = (up.shape[-2], down.shape[-1])
        yield Reading("updates_exact", component, low_rank_spectrum(up, down), shape, factored=True)


def difference(now: Matrices, then: Matrices) -> Matrices:
    """Return ``now`` minus ``then`` by component, in float64."""
    return {component: now[component].double() - then[component].double() for component in now}


def sparsity(matrices: Matrices) -> Iterator[Values]:
    """Read the sparsity of the effective weights, by Gini coefficient and Hoyer's measure."""
    for component, matrix in matrices.items():
        for metric, measured in (("gini", gini), ("hoyer", hoyer)):
            yield Values("effective_weights", component, metric, measured(matrix.flatten(1)))


def overlaps(quantity: str, now: Matrices, before: Matrices, dimensions: int) -> Iterator[Values]:
    """Read the overlap of the leading directions of two updates, of a window and of the window before it."""
    for component in now:
        subspaces = zip(
            ("overlap_left", "overlap_right"),
            leading_subspaces(now[component], dimensions),
            leading_subspaces(before[component], dimensions),
            strict=True,
        )
        for metric, subspace, subspace_before in subspaces:
            yield Values(quantity, component, metric, overlap(subspace, subspace_before))


def readings(checkpoint: Checkpoint) -> Iterator[AnyReading]:
    """Take all readings that need no other checkpoint."""
    yield from sparsity(checkpoint.effective)
    yield Values("hidden_states", "layer_output", "mean_cosine", mean_cosine(checkpoint.states))
    for metric, value in checkpoint.merge.items():
        yield Values("merge", "model", metric, torch.tensor(value))
    yield from weights("weights", checkpoint.base, checkpoint.head_dim)
    yield from weights("effective_weights", checkpoint.effective, checkpoint.head_dim)
    yield from updates(checkpoint)
    yield from dense("gradients", checkpoint.gradients)


def few_tokens(batch: Tensor) -> Tensor:
    """Return the first sequences of ``batch`` [sequences, context_length + 1], about 1,024 tokens."""
    return batch[: max(1, STATES_TOKENS // (batch.shape[1] - 1))]
