"""ReLoRA's layer: a frozen weight with a low-rank adapter that is merged into it and started again.

Lialin et al. 2023 (arXiv 2307.05695), section 3; the adapter itself is LoRA (Hu et al. 2021, arXiv 2106.09685).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import Method


class ReLoRALinear(nn.Module):
    """A linear map ``x W^T + scale * dropout(x) A^T B^T``; W is frozen, A [rank, in] and B [out, rank] train.

    ``weight`` keeps the name it had in the layer that this one replaces, so a base model's state fits.
    """

    def __init__(self, weight: Tensor, method: Method) -> None:
        """Take ``weight`` [out, in] over, frozen, and give it an adapter as ``method`` says."""
        super().__init__()
        out_features, in_features = weight.shape
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.A = nn.Parameter(weight.new_zeros(method.rank, in_features))
        self.B = nn.Parameter(weight.new_zeros(out_features, method.rank))
        self.dropout = nn.Dropout(method.dropout)
        self.scale = method.scale
        self.merge_scale = method.scale if method.merge == "scaled" else 1.0
        if method.adapter_initialization == "kaiming":
            self.restart()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` [..., in] to [..., out]."""
        update = functional.linear(functional.linear(self.dropout(x), self.A), self.B)
        return functional.linear(x, self.weight) + self.scale * update

    @torch.no_grad()
    def merge(self) -> None:
        """Add the adapter's product to W: times the scale, or without it, as the released trainer does."""
        self.weight.addmm_(self.B, self.A, alpha=self.merge_scale)

    @torch.no_grad()
    def restart(self) -> None:
        """Draw A anew (kaiming-uniform, a = sqrt 5) and set B to zero, so that B A is zero and can learn."""
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        nn.init.zeros_(self.B)

    @torch.no_grad()
    def effective_weight(self) -> Tensor:
        """The weight [out, in] that the forward pass applies without dropout, W + scale B A."""
        return torch.addmm(self.weight, self.B, self.A, alpha=self.scale)


def add_adapters(model: nn.Module, method: Method) -> None:
    """Replace every linear layer that ``method.targets`` names; all else (embeddings, norms, head) trains whole."""
    linears = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for name, linear in linears:
        parent, _, target = name.rpartition(".")
        if target in method.targets:
            setattr(model.get_submodule(parent), target, ReLoRALinear(linear.weight, method))


def adapters(model: nn.Module) -> dict[str, ReLoRALinear]:
    """The adapted layers by name, in the model's order; empty for a full-rank model."""
    return {name: module for name, module in model.named_modules() if isinstance(module, ReLoRALinear)}


def effective_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of the plain model that computes what ``model`` computes in evaluation: adapters folded in."""
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith((".A", ".B"))}
    return state | {f"{name}.weight": layer.effective_weight() for name, layer in adapters(model).items()}
