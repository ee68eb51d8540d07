"""Reset between two cycles of ReLoRA: merge the adapters, restart them, and clear the optimizer's moments.

The switches of a method choose the kind of merge, restart and clearing, so that variants need no code.
"""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Method
from ..model.relora import ReLoRALinear, adapters, targeted
from .parallel import drawing_alike


def reset(
    model: nn.Module, optimizer: torch.optim.Optimizer, method: Method, seed: int, rank: int | None = None
) -> None:
    """Merge every adapter into its weight, restart it at ``rank`` (the method's), and clear its moments, in place.

    At full rank, clear the moments of the targets' weights. Random draws depend on ``seed`` alone, so that all
    processes of a data-parallel run draw alike.
    """
    with drawing_alike(seed):
        for layer in adapters(model).values():
            if method.merge != "none":
                layer.merge()
            _restart(layer, method)
            if method.scale_reset == "zero":
                _zero_scale(layer)
            for factor in (layer.A, layer.B):
                _forget(factor, optimizer, method)
            if rank is not None and rank < method.rank:
                narrow(layer, optimizer, rank)
        for parameter in _cleared_beside(model, method):
            _forget(parameter, optimizer, method)


def _cleared_beside(model: nn.Module, method: Method) -> list[Tensor]:
    """Return what else a reset clears the moments of: all else, or at full rank the targets' weights."""
    if method.moment_scope == "all":
        factors = {id(factor) for layer in adapters(model).values() for factor in (layer.A, layer.B)}
        return [parameter for parameter in model.parameters() if id(parameter) not in factors]
    return [] if method.rank else [layer.weight for layer in targeted(model, method).values()]


@torch.no_grad()
def _restart(layer: ReLoRALinear, method: Method) -> None:
    """Begin a cycle with the restart of ``method``."""
    if method.restart == "orthogonal":
        narrow_unused(layer)
    if method.restart != "none":
        layer.restart()
    if method.restart == "orthogonal":
        projected = layer.A @ layer.unused_A
        layer.A.copy_(projected * (layer.A.norm(dim=1) / projected.norm(dim=1))[:, None])


@torch.no_grad()
def _zero_scale(layer: ReLoRALinear) -> None:
    """Set the trained scale to 0. Its gradient is zero as long as B is zero, but moments from before still move it."""
    assert isinstance(layer.scale, Tensor)  # the schema allows this switch only with a trained scale
    layer.scale.zero_()


@torch.no_grad()
def narrow(layer: ReLoRALinear, optimizer: torch.optim.Optimizer, rank: int) -> None:
    """Narrow the adapter to ``rank``, and clear the moments of what is zero then, so that nothing moves it again."""
    layer.narrow(rank)
    for moment in moments(layer.A, optimizer):
        moment[rank:] = 0.0
    for moment in moments(layer.B, optimizer):
        moment[:, rank:] = 0.0


def narrow_unused(layer: ReLoRALinear) -> None:
    """Remove the row space of the present A from ``unused_A``.

    ``unused_A`` [in, in] projects on the directions that no A of this layer has used. If fewer than ``rank`` directions
    are left, all count as unused again.
    """
    unused = layer.unused_A
    directions, sizes, _ = torch.linalg.svd(unused @ layer.A.mT, full_matrices=False)
    used = directions[:, sizes > sizes.max() * 1e-5]
    unused -= used @ used.mT
    if unused.diagonal().sum().round() < len(layer.A):
        unused.copy_(torch.eye(len(unused)))


def moments(parameter: Tensor, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return what ``optimizer`` keeps of each entry of ``parameter``: of AdamW the first and the second moment.

    Other state, such as a step count or a direction, is no moment.
    """
    kept = sorted(optimizer.state.get(parameter, {}).items())
    return [moment for name, moment in kept if name != "step" and moment.shape == parameter.shape]


@torch.no_grad()
def _forget(parameter: Tensor, optimizer: torch.optim.Optimizer, method: Method) -> None:
    """Zero entries of the moments of ``parameter``, with a shared or an independent mask."""
    mask = None
    for moment in moments(parameter, optimizer):
        if mask is None or method.moment_mask == "independent":
            mask = _kept(moment, method)
        moment.mul_(mask)


def _kept(moment: Tensor, method: Method) -> Tensor:
    """Return a mask of the entries of ``moment`` that survive: all, none, a random share, or the largest ones."""
    if method.moment_reset == "random":
        drawn = torch.rand_like(moment, device="cpu")  # on the CPU, because draws differ between GPUs
        return (drawn >= method.moment_reset_fraction).to(moment.device)
    if method.moment_reset == "magnitude":
        return moment.abs() > quantile(moment.abs(), method.moment_reset_fraction)
    return torch.full_like(moment, float(method.moment_reset == "none"))


def quantile(values: Tensor, share: float) -> Tensor:
    """Return the number below which ``share`` of ``values`` lie, as `torch.quantile` interpolates it, in float32.

    That function takes 16 million values at most, which an embedding's moments exceed.
    """
    ordered, last = values.flatten().sort().values, values.numel() - 1
    place = min(float(np.float32(share) * np.float32(last)), last)
    below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
    return torch.lerp(below, above, place - math.floor(place))


class MasterCopies:
    """Float32 masters of A and B, which undo a restart one step later, as mixed precision in DeepSpeed's ZeRO-2 does.

    ZeRO keeps a float32 master of every parameter that trains. It steps the masters, and copies them over the model's
    parameters after each step. A reset rewrites A and B in the model and does not reach the masters. The frozen W has
    no master, so W keeps the merge. One forward and backward pass therefore see the new A and the zero B; then the
    optimizer applies their gradients to the old A and B, which come back. After a first cycle with A = B = 0, this step
    is the first to give B a gradient, and A, whose master is zero, is zero again until B has moved.
    That DeepSpeed does this is measured: these masters give a real engine's losses in float32 (`make bench-zero2`).
    That the published runs did it is an inference from their configuration (docs/audit.md). Parameters in bfloat16 are
    not modelled; ``frozen_dtype: bfloat16`` rounds W alone.
    """

    def __init__(self, layers: Iterable[ReLoRALinear]) -> None:
        """Register masters of A and B as buffers of each layer in ``layers``, so that a saved state has them."""
        self._layers = list(layers)
        for layer in self._layers:
            layer.register_buffer("master_A", layer.A.detach().clone())
            layer.register_buffer("master_B", layer.B.detach().clone())

    @torch.no_grad()
    def before_step(self) -> None:
        """Copy the masters into the model, so that the optimizer applies the model's gradients to them."""
        for layer in self._layers:
            layer.A.copy_(layer.master_A)
            layer.B.copy_(layer.master_B)

    @torch.no_grad()
    def after_step(self) -> None:
        """Copy the stepped parameters into the masters. Model and masters agree until a reset rewrites the model."""
        for layer in self._layers:
            layer.master_A.copy_(layer.A)
            layer.master_B.copy_(layer.B)
