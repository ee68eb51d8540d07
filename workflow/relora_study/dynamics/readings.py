"""Take readings of one checkpoint, or of the difference between two, as rows of a long table."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from ..config import Method
from ..model.checkpoints import load_adapters, load_model, read_metadata
from ..model.decoder import head_dim, head_weight
from .matrices import Factors, Matrices, adapter_factors, frozen_base, weight_matrices
from .measures import (
    authors_ov,
    effective_rank,
    gini,
    hoyer,
    leading_subspaces,
    low_rank_spectrum,
    ov_circuit_factors,
    overlap,
    reason,
    spectral_metrics,
    spectrum,
)
from .passes import gradients, layer_states, mean_cosine, merge_effects
from .steps import first_step, gradient_share

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

    ``head`` is the output head, [1, vocabulary, d_model], and ``scale`` is s. ``states`` are hidden states on a few
    tokens. ``merge`` holds the effects of a merge, by metric.
    """

    step: int
    head_dim: int
    effective: Matrices
    base: Matrices
    gradients: Matrices
    adapted: bool = False  # the model has adapters, perhaps on other components
    factors: dict[str, Factors] = field(default_factory=dict)
    scale: float = 0.0
    head: Tensor = field(default_factory=lambda: torch.empty(0))
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
            scale=metadata.scale or 0.0,
            head=head_weight(model).detach()[None],
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


def representations(checkpoint: Checkpoint) -> Iterator[AnyReading]:
    """Read the anisotropy of hidden states, and how many dimensions they fill about their mean."""
    states = checkpoint.states.double()
    yield Values("hidden_states", "layer_output", "mean_cosine", mean_cosine(states))
    filled = effective_rank(spectrum(states - states.mean(-2, keepdim=True)))
    yield Values("hidden_states", "layer_output", "effective_rank", filled)


def adapters(checkpoint: Checkpoint) -> Iterator[AnyReading]:
    """Read what the live adapters can follow of the gradient, and their first step beside Adam's on W."""
    for component, (down, up) in checkpoint.factors.items():
        gradient = checkpoint.gradients[component]
        yield Values("adapters", component, "gradient_share", gradient_share(gradient, down, up))
        for metric, value in first_step(gradient, down, up, checkpoint.scale)._asdict().items():
            yield Values("adapters", component, metric, value)


def merge(checkpoint: Checkpoint) -> Iterator[AnyReading]:
    """Read the effects of a merge and restart."""
    for metric, value in checkpoint.merge.items():
        yield Values("merge", "model", metric, torch.tensor(value))


class Declared(NamedTuple):
    """A quantity of dynamics.csv: what it is, and what reads it.

    ``components`` says which ones it has, ``unit`` is that of its metrics unless they are shares or counts. ``take``
    reads it from one checkpoint; it is None where `dynamics.cell` reads it from several, or from the training's log.
    """

    quantity: str
    definition: str
    components: str
    unit: str = "–"
    take: Callable[[Checkpoint], Iterator[AnyReading]] | None = None


EVERY, CIRCUITS = "`w2`, `v`, `o`", "`w2`, `ov_authors`, `ov_circuit` (W_O W_V of each head)"
MATRIX = "of `frobenius_norm` and `spectral_norm`: the matrix's"
READINGS = [  # in the order of dynamics.csv; results/README.md has the table that `make docs` makes of it
    Declared(
        "effective_weights",
        "`gini` and `hoyer` of the entries of W + s B A: how unevenly their sizes are spread",
        EVERY,
        take=lambda checkpoint: sparsity(checkpoint.effective),
    ),
    Declared(
        "hidden_states",
        "`mean_cosine` of pairs of tokens, `effective_rank` about their mean, and `cka_with_last` of each decoder"
        " layer's output, before the model's final norm, on about 1,024 held-out tokens",
        "`layer_output`",
        take=representations,
    ),
    Declared(
        "head",
        "the output head, whose width bounds the rank of the logits (Godey et al. 2024, arXiv:2404.07647)",
        "`head`",
        MATRIX,
        lambda checkpoint: dense("head", {"head": checkpoint.head}),
    ),
    Declared(
        "merge",
        "the effect of a merge and restart at this checkpoint: `loss_before`, `loss_after`, `loss_jump`, and"
        " `update_lost` (a share)",
        "`model`",
        "nats a token",
        merge,
    ),
    Declared(
        "weights",
        "the frozen W (all weights, for full rank), as published",
        CIRCUITS,
        MATRIX,
        lambda checkpoint: weights("weights", checkpoint.base, checkpoint.head_dim),
    ),
    Declared(
        "effective_weights",
        "W + s B A",
        CIRCUITS,
        MATRIX,
        lambda checkpoint: weights("effective_weights", checkpoint.effective, checkpoint.head_dim),
    ),
    Declared(
        "updates",
        "as published, in float32: B A of the live adapters, or the gradient for full rank",
        EVERY,
        MATRIX,
        updates,
    ),
    Declared("updates_exact", "B A from its factors, in float64, over its r singular values", EVERY, MATRIX),
    Declared(
        "gradients",
        "gradients with respect to the effective weights, on one fixed held-out batch, for every method",
        EVERY,
        "nats a token, over the matrix's",
        lambda checkpoint: dense("gradients", checkpoint.gradients),
    ),
    Declared(
        "net_update",
        "effective weights minus the ones of `checkpoint_every` steps before; `overlap_left` and `overlap_right` with"
        " the update before",
        EVERY,
        MATRIX,
    ),
    Declared(
        "cycle_update",
        "as `net_update`, over the study's longest reset period, at its multiples, for every method",
        EVERY,
        MATRIX,
    ),
    Declared(
        "cumulative_update",
        "effective weights minus the ones of step 0; `intruders`: how many leading left singular directions of the"
        " effective weights are near none of step 0's",
        EVERY,
        MATRIX,
    ),
    Declared(
        "adapters",
        "of the gradient's squared norm, `gradient_share` lies where A and B can move B A; `cosine_with_adam`,"
        " `norm_over_adam` and `cosine_with_descent` of their first step from empty moments",
        EVERY,
        take=adapters,
    ),
    Declared(
        "adapter_gradients",
        "`mean_norm` and `largest_norm` of the adapters' gradient over each of those cycles, in `log.csv`; zero: dead",
        "`model`",
        "nats a token, over A's and B's",
    ),
]


def readings(checkpoint: Checkpoint) -> Iterator[AnyReading]:
    """Take all readings that need no other checkpoint."""
    for declared in READINGS:
        if declared.take:
            yield from declared.take(checkpoint)


def document() -> str:
    """Return the table of all quantities, in Markdown."""
    rows = [f"| `{one.quantity}` | {one.definition} | {one.components} | {one.unit} |" for one in READINGS]
    return "\n".join(["| quantity | what is read | components | unit |", "|---|---|---|---|", *rows])


def few_tokens(batch: Tensor) -> Tensor:
    """Return the first sequences of ``batch`` [sequences, context_length + 1], about 1,024 tokens."""
    return batch[: max(1, STATES_TOKENS // (batch.shape[1] - 1))]
