"""Compare a cell's checkpoints with those of full rank on an equal seed: both begin with equal weights and data."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..model.checkpoints import list_checkpoints, load_model
from .matrices import Matrices, weight_matrices
from .passes import layer_states, linear_cka, mean_loss
from .readings import AnyReading, Values, difference, few_tokens

QUANTITY = "against_full_rank"
PLACES = (0.25, 0.5, 0.75)  # of the straight path, at which the barrier is looked for


def common_steps(cell_dir: Path, reference_dir: Path) -> Iterator[tuple[int, Path, Path]]:
    """Yield each step at which both cells have a checkpoint, with both folders. Raises :class:`UserError`."""
    ours, others = list_checkpoints(cell_dir), list_checkpoints(reference_dir)
    yield from ((step, ours[step], others[step]) for step in ours if step in others)


def against(cell_dir: Path, reference_dir: Path, batch: Tensor) -> Iterator[tuple[int, AnyReading]]:
    """Read the cell in ``cell_dir`` beside the full-rank cell in ``reference_dir`` at each common step.

    ``batch`` is the fixed batch, int64 [sequences, context_length + 1]. Step 0 gives the weights from which both moved.
    """
    start: Matrices = {}
    steps = list(common_steps(cell_dir, reference_dir))
    for step, ours, others in steps:
        model, reference = load_model(ours, batch.device), load_model(others, batch.device)
        if step == 0:
            start = weight_matrices(reference)
            continue
        yield from ((step, one) for one in states_and_loss(model, reference, batch))
        moved, expected = (difference(weight_matrices(each), start) for each in (model, reference))
        yield from ((step, one) for one in paths(moved, expected))
        if step == steps[-1][0]:
            yield step, Values(QUANTITY, "model", "barrier", torch.tensor(barrier(model, reference, batch)))


def states_and_loss(model: PreTrainedModel, reference: PreTrainedModel, batch: Tensor) -> Iterator[Values]:
    """Read how alike the hidden states are, and the difference in loss on the fixed batch."""
    ours, others = (layer_states(each, few_tokens(batch)) for each in (model, reference))
    yield Values(QUANTITY, "layer_output", "cka", linear_cka(ours, others))
    apart = mean_loss(model, batch) - mean_loss(reference, batch)
    yield Values(QUANTITY, "model", "loss_difference", torch.tensor(apart))


def paths(moved: Matrices, expected: Matrices) -> Iterator[Values]:
    """Read the cosine of both models' updates since step 0, and their distance over the length of full rank's."""
    for component, ours in moved.items():
        others = expected[component]
        lengths = [torch.linalg.matrix_norm(matrix) for matrix in (ours, others)]
        yield Values(QUANTITY, component, "cosine", (ours * others).sum((-2, -1)) / (lengths[0] * lengths[1]))
        yield Values(QUANTITY, component, "distance", torch.linalg.matrix_norm(ours - others) / lengths[1])


@torch.no_grad()
def barrier(model: PreTrainedModel, reference: PreTrainedModel, batch: Tensor) -> float:
    """Return how far the loss on the straight path between two models rises above the line between their losses (nats).

    Frankle et al. 2020 (linear mode connectivity), at a quarter, a half and three quarters. ``model`` is changed.
    """
    ends = [mean_loss(reference, batch), mean_loss(model, batch)]
    whole = {name: weight.clone() for name, weight in model.named_parameters()}
    others = dict(reference.named_parameters())
    heights = []
    for place in PLACES:
        for name, weight in model.named_parameters():
            weight.copy_(torch.lerp(others[name], whole[name], place))
        heights.append(mean_loss(model, batch) - ends[0] - place * (ends[1] - ends[0]))
    return max(heights)
