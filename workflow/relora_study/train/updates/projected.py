"""Optimizers that keep Adam's moments of a projection of the gradient: GaLore, Fira and APOLLO.

The gradient G [m, n] of a target is projected on ``projection_rank`` directions of its shorter side, by P
[min(m, n), rank]: R = G P [m, rank] for m >= n, else R = P^T G [rank, n]. Adam's moments are those of R. With N, the
first moment over the root of the second, and the bias correction in the rate, the weight moves against:

- ``galore`` (Zhao et al. 2024, arXiv 2403.03507, algorithms 1 and 2): alpha times N P^T. P holds the leading singular
  directions of G, anew every ``projection_period`` steps.
- ``fira`` (Chen et al. 2024, arXiv 2410.01623): the same, plus what the projection leaves of G, with each
  channel times |N| / |R|. The norm-growth limiter bounds how much the norm of this second part grows in a step.
- ``apollo`` (Zhu et al. 2024, arXiv 2412.05270, algorithm 1): alpha times G, with each channel (APOLLO-Mini: all of G)
  times |N| / |R|, under the same limiter. P is drawn from N(0, 1 / rank), anew every ``projection_period`` steps.

A channel is a row of G for m >= n, else a column. Where the authors' packages (galore-torch 1.0, fira 1.0.2,
apollo-torch 1.0.3) deviate from their papers, we follow the packages, because the published numbers are theirs:

- The moments stay as they are when P changes. So does GaLore's algorithm 2; to turn them into the new directions is
  left for other work.
- Adam's epsilon is added to the root of the second moment before the bias correction, unlike in torch's AdamW. The
  limiter sees an update before its bias correction.
- Fira's package takes alpha times the projected part from G, so with alpha below 1 the rest is not orthogonal to it.
- Weight decay comes after the step. torch's AdamW decays first; the two differ by rate^2 times decay.
- apollo-torch's scale is the square of our alpha. Its draws depend on the device; ours are the CPU's.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.linalg import vector_norm

from ...config import Method
from . import Matrix, MatrixOptimizer, Recipe, State

LARGEST_GROWTH = 1.01  # of the limited norm in a step (Fira)
TINY = 1e-8  # added to norms that divide, as in the packages


class Projected(MatrixOptimizer):
    """The projected update of a method for whole weights.

    All that a step needs is in ``state``: ``projection``, ``exp_avg`` and ``exp_avg_sq`` of R, ``step`` and, with a
    limiter, ``limited_norm``. So a training goes on exactly from a saved state. Random projections depend on the seed,
    the place among the matrices and the step alone.
    """

    def __init__(self, matrices: Sequence[Matrix], method: Method, recipe: Recipe, seed: int) -> None:
        """Step the weights of ``matrices``."""
        super().__init__(matrices, method, recipe, seed)
        self._done: dict[int, int] = {}

    def step_matrix(self, matrix: Matrix, place: int, group: dict[str, Any]) -> None:
        """Step the weight of ``matrix``."""
        (weight,), method = matrix, self.method
        gradient, state = weight.grad, self.state[weight]
        done = self._finished_steps(place, state)
        assert gradient is not None  # the caller looked
        if done % method.projection_period == 0 or not state:
            state["projection"] = self._new_projection(gradient, done, place)
        projected = project(gradient, state["projection"])
        first, second = (1.0 - beta ** (done + 1) for beta in group["betas"])
        direction = _adam_direction(state, projected, group)
        update = DIRECTIONS[method.update](state, gradient, projected, direction, method)
        weight.add_(update, alpha=-group["lr"] * second**0.5 / first)
        weight.mul_(1.0 - group["lr"] * group["weight_decay"])
        state["step"] = torch.full((), float(done + 1), device=weight.device)
        self._done[place] = done + 1

    def _finished_steps(self, place: int, state: State) -> int:
        """Return the steps before this one. They are read from a loaded state once, because a GPU waits for it."""
        if place not in self._done:
            self._done[place] = int(state["step"].item()) if state else 0
        return self._done[place]

    def _new_projection(self, gradient: Tensor, done: int, place: int) -> Tensor:
        rank = self.method.projection_rank
        assert rank is not None  # the schema requires one with these updates
        if self.method.update == "apollo":
            return random_directions(gradient, rank, (self.seed, place, done))
        return leading_directions(gradient, rank)


def project(gradient: Tensor, projection: Tensor) -> Tensor:
    """Project ``gradient`` [m, n] by ``projection`` [min(m, n), rank], to [m, rank] for m >= n, else to [rank, n]."""
    return gradient @ projection if _is_tall(gradient) else projection.mT @ gradient


def project_back(projected: Tensor, projection: Tensor, like: Tensor) -> Tensor:
    """Bring ``projected`` back to the shape of ``like`` [m, n], from which :func:`project` made it."""
    return projected @ projection.mT if _is_tall(like) else projection @ projected


def leading_directions(gradient: Tensor, rank: int) -> Tensor:
    """Return the ``rank`` leading singular directions of the shorter side of ``gradient`` [m, n], as columns.

    Entries that are not finite count as 0: the decomposition would raise, and hide that the training diverged.
    """
    left, _, right = torch.linalg.svd(torch.nan_to_num(gradient, 0.0, 0.0, 0.0), full_matrices=False)
    chosen: Tensor = right[:rank].mT if _is_tall(gradient) else left[:, :rank]
    return chosen.clone(memory_format=torch.contiguous_format)  # a view would keep the whole decomposition in memory


def random_directions(gradient: Tensor, rank: int, seeds: tuple[int, ...]) -> Tensor:
    """Draw ``rank`` directions [min(m, n), rank] of the shorter side of ``gradient`` [m, n] from N(0, 1 / rank).

    They are drawn on the CPU from ``seeds``, so that all processes and devices draw alike.
    """
    seed = int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1)
    drawn = torch.randn(min(gradient.shape), rank, generator=torch.Generator().manual_seed(seed))
    return drawn.to(gradient.device, gradient.dtype).div_(math.sqrt(rank))


def _is_tall(gradient: Tensor) -> bool:
    return gradient.shape[0] >= gradient.shape[1]


def _adam_direction(state: State, projected: Tensor, group: dict[str, Any]) -> Tensor:
    """Update Adam's moments of R, and return N: the first over the root of the second, without bias correction."""
    if "exp_avg" not in state:
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(projected), torch.zeros_like(projected)
    first, second = group["betas"]
    state["exp_avg"].lerp_(projected, 1.0 - first)
    state["exp_avg_sq"].mul_(second).addcmul_(projected, projected, value=1.0 - second)
    return state["exp_avg"].div(state["exp_avg_sq"].sqrt().add_(group["eps"]))


def _galore(state: State, gradient: Tensor, projected: Tensor, direction: Tensor, method: Method) -> Tensor:
    return method.projection_scale * project_back(direction, state["projection"], gradient)


def _fira(state: State, gradient: Tensor, projected: Tensor, direction: Tensor, method: Method) -> Tensor:
    inside = method.projection_scale * project_back(projected, state["projection"], gradient)
    outside = (gradient - inside) * _channel_factors(gradient, projected, direction)
    return _galore(state, gradient, projected, direction, method) + _limited(state, outside)


def _apollo(state: State, gradient: Tensor, projected: Tensor, direction: Tensor, method: Method) -> Tensor:
    if method.projection_scaling == "tensor":
        factors = vector_norm(direction) / (vector_norm(projected) + TINY)
    else:
        factors = _channel_factors(gradient, projected, direction)
    return method.projection_scale * _limited(state, gradient * factors)


DIRECTIONS = {"galore": _galore, "fira": _fira, "apollo": _apollo}


def _channel_factors(gradient: Tensor, projected: Tensor, direction: Tensor) -> Tensor:
    """Return |N| / |R| of each channel of ``gradient`` [m, n]: [m, 1] for m >= n, else [1, n]."""
    across = 1 if _is_tall(gradient) else 0
    factors: Tensor = vector_norm(direction, dim=across, keepdim=True)
    return factors.div_(vector_norm(projected, dim=across, keepdim=True).add_(TINY))


def _limited(state: State, update: Tensor) -> Tensor:
    """Shrink ``update`` so that its norm is at most ``LARGEST_GROWTH`` times that of the step before."""
    norm, divisor = vector_norm(update), torch.ones_like(update[0, 0])
    if "limited_norm" in state:
        divisor = torch.clamp(norm / (state["limited_norm"] + TINY), min=LARGEST_GROWTH) / LARGEST_GROWTH
    state["limited_norm"] = norm / divisor
    return update.div_(divisor)
