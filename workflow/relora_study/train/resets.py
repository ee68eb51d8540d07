"""What happens between two of ReLoRA's cycles."""

import torch
from torch import Tensor, nn

from ..config import Method
from ..model.relora import adapters


def is_reset(method: Method, step: int) -> bool:
    """Whether the reset follows optimizer step ``step``: at ``k * period + offset`` for k >= 1.

    The released trainer merges after the step that makes its counter 2,000 k + 1.
    """
    if method.reset_period is None:
        return False
    cycle, since = divmod(step - method.reset_offset, method.reset_period)
    return cycle >= 1 and since == 0


def reset(model: nn.Module, optimizer: torch.optim.Optimizer, method: Method) -> None:
    """Merge every adapter into its weight, start it again, and forget its moments; in place."""
    for layer in adapters(model).values():
        layer.merge()
        layer.restart()
        if method.moment_reset == "random":
            for factor in (layer.A, layer.B):
                _forget(optimizer.state[factor], method.moment_reset_fraction)


@torch.no_grad()
def _forget(state: dict[str, Tensor], fraction: float) -> None:
    """Zero a random ``fraction`` of both of Adam's moments, each with a draw of its own; the step count stays."""
    for moment in (state["exp_avg"], state["exp_avg_sq"]):
        moment.mul_(torch.rand_like(moment) >= fraction)
