"""SwiGLU (Shazeer 2020) that keeps two wide activations for the backward pass, where plain autograd keeps five."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional


class _GatedProduct(torch.autograd.Function):
    """``silu(gate) * up``, elementwise; the sigmoid is computed again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        """The product, of the shape of both."""
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor]:
        """With s = sigmoid(gate): d silu / d gate = s (1 + gate (1 - s))."""
        gate, up = ctx.saved_tensors
        slope = torch.ops.aten.silu_backward(upstream[0] * up, gate)
        return slope, functional.silu(gate).mul_(upstream[0])


class SwiGLU(nn.Module):
    """Transformers' Llama MLP with the same parameters under the same names."""

    def __init__(self, gate_proj: nn.Module, up_proj: nn.Module, down_proj: nn.Module) -> None:
        """Take the three projections over."""
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = gate_proj, up_proj, down_proj
        self.computes_again = True  # not beside activation checkpointing, which then would keep what it need not

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` [..., d_model] to the same shape."""
        gate, up = self.gate_proj(x), self.up_proj(x)
        mixed = _GatedProduct.apply(gate, up)  # type: ignore[no-untyped-call]
        if torch.compiler.is_compiling() or not self.computes_again:  # a compiler decides itself
            return self.down_proj(mixed)  # type: ignore[no-any-return]
        with _computed_again(mixed, gate.detach(), up.detach()):
            return self.down_proj(mixed)  # type: ignore[no-any-return]


def _computed_again(mixed: Tensor, gate: Tensor, up: Tensor) -> saved_tensors_hooks:
    """A context in which autograd does not keep ``mixed`` for the backward pass, but computes it from the others."""
    place = mixed.data_ptr()

    def pack(kept: Tensor) -> Tensor | torch.Size:
        return kept.shape if kept.data_ptr() == place and kept.numel() == gate.numel() else kept

    def unpack(kept: Tensor | torch.Size) -> Tensor:
        return kept if isinstance(kept, Tensor) else functional.silu(gate).mul_(up).view(kept)

    return saved_tensors_hooks(pack, unpack)
