"""What happens between two of ReLoRA's cycles."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..config import Method
from ..model.relora import ReLoRALinear, adapters
from .parallel import drawing_alike


def reset(model: nn.Module, optimizer: torch.optim.Optimizer, method: Method, seed: int) -> None:
    """Merge every adapter into its weight, start it again, and forget its moments; in place.

    What is drawn depends on ``seed`` alone, so that the processes of a data-parallel run draw the same.
    """
    with drawing_alike(seed):
        for layer in adapters(model).values():
            if method.merge != "none":
                layer.merge()
            _restart(layer, method)
            if method.scale_reset == "zero":
                _zero_scale(layer, optimizer)
            for factor in (layer.A, layer.B):
                _forget(optimizer.state[factor], method)
        if method.moment_scope == "all":
            factors = {id(factor) for layer in adapters(model).values() for factor in (layer.A, layer.B)}
            for parameter in model.parameters():
                if id(parameter) not in factors and optimizer.state.get(parameter):
                    _forget(optimizer.state[parameter], method)


@torch.no_grad()
def _restart(layer: ReLoRALinear, method: Method) -> None:
    """Begin a cycle as ``method.restart`` says."""
    if method.restart == "orthogonal":
        narrow_unused(layer)
    if method.restart != "none":
        layer.restart()
    if method.restart == "orthogonal":
        projected = layer.A @ layer.unused_A
        layer.A.copy_(projected * (layer.A.norm(dim=1) / projected.norm(dim=1))[:, None])


@torch.no_grad()
def _zero_scale(layer: ReLoRALinear, optimizer: torch.optim.Optimizer) -> None:
    """Set the trained scale to 0, and its moments, which would move it. Beside a zero B it has no gradient again."""
    assert isinstance(layer.scale, Tensor)  # the schema asks for a trained one
    layer.scale.zero_()
    for moment in ("exp_avg", "exp_avg_sq"):
        optimizer.state[layer.scale][moment].zero_()


def narrow_unused(layer: ReLoRALinear) -> None:
    """Take the directions of the cycle's A out of ``unused_A``, the projection [in, in] on those that no A has used.

    Where too few are left for another A, all count as unused again.
    """
    unused = layer.unused_A
    directions, sizes, _ = torch.linalg.svd(unused @ layer.A.mT, full_matrices=False)
    used = directions[:, sizes > sizes.max() * 1e-5]
    unused -= used @ used.mT
    if unused.diagonal().sum().round() < len(layer.A):
        unused.copy_(torch.eye(len(unused)))


@torch.no_grad()
def _forget(state: dict[str, Tensor], method: Method) -> None:
    """Zero a share of both of Adam's moments, by one choice or each by its own; the step count stays."""
    kept = _kept(state["exp_avg"], method)
    state["exp_avg"].mul_(kept)
    if method.moment_mask == "independent":
        kept = _kept(state["exp_avg_sq"], method)
    state["exp_avg_sq"].mul_(kept)


def _kept(moment: Tensor, method: Method) -> Tensor:
    """1 where ``moment`` survives a reset: all, none, a random share, or the share that is largest in magnitude."""
    if method.moment_reset == "random":
        drawn = torch.rand_like(moment, device="cpu")  # alike for unlike GPUs
        return (drawn >= method.moment_reset_fraction).to(moment.device)
    if method.moment_reset == "magnitude":
        order = moment.abs().flatten().argsort(stable=True).argsort(stable=True)
        return (order >= round(method.moment_reset_fraction * moment.numel())).view_as(moment)
    return torch.full_like(moment, float(method.moment_reset == "none"))


class MasterCopies:
    """What mixed precision in DeepSpeed's ZeRO-2 does to a restart: it undoes it, one step later.

    ZeRO keeps a float32 master of every parameter that trains, steps the masters, and copies them over the model's
    own parameters after each step. A reset that rewrites A and B in the model does not reach the masters, while the
    frozen W has none and keeps the merge. So one forward and backward pass see the new A and the zero B; their
    gradients then move the old A and B, which come back. After a first cycle with A = B = 0 that step is the
    first to give B a gradient, and A, whose master is zero, is zero again until B has moved.
    A hypothesis about the published runs (docs/audit.md); bfloat16 rounding is not modelled.
    """

    def __init__(self, layers: Iterable[ReLoRALinear]) -> None:
        """Keep masters of the adapters in ``layers``, as buffers of theirs, so that a saved state has them."""
        self._layers = list(layers)
        for layer in self._layers:
            layer.register_buffer("master_A", layer.A.detach().clone())
            layer.register_buffer("master_B", layer.B.detach().clone())

    @torch.no_grad()
    def before_step(self) -> None:
        """Put the masters in the model's place: the optimizer is to move them, by the model's gradients."""
        for layer in self._layers:
            layer.A.copy_(layer.master_A)
            layer.B.copy_(layer.master_B)

    @torch.no_grad()
    def after_step(self) -> None:
        """Note the moved masters; the model holds the same numbers until a reset rewrites them."""
        for layer in self._layers:
            layer.master_A.copy_(layer.A)
            layer.master_B.copy_(layer.B)
