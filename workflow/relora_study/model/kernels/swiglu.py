"""SwiGLU (Shazeer 2020) that keeps two wide activations for the backward pass, where plain autograd keeps five.

Plain reference::

    def swiglu(x, gate, up, down):
        return (functional.silu(x @ gate.mT) * (x @ up.mT)) @ down.mT

The last projection takes the two activations as a `Gated` pair instead of their product. Its own autograd function
keeps the pair, forms the product for the forward pass, and forms it again for the backward pass.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Gated(NamedTuple):
    """The input ``silu(gate) * up`` of a projection, not yet multiplied; both tensors are [..., width]."""

    gate: Tensor
    up: Tensor

    @property
    def shape(self) -> torch.Size:
        """The shape of either tensor, and of their product."""
        return self.gate.shape


def as_rows(x: Tensor | Gated) -> tuple[Tensor, Tensor | None]:
    """``x`` as matrices [n, width]: (gate, up) of a pair, (x, None) of a tensor."""
    gate, up = x if isinstance(x, Gated) else (x, None)
    return gate.flatten(0, -2), None if up is None else up.flatten(0, -2)


def activation(gate: Tensor, up: Tensor | None) -> Tensor:
    """``silu(gate) * up``, or the first tensor alone where it is an activation already."""
    return gate if up is None else functional.silu(gate).mul_(up)


def activation_gradients(gradient: Tensor | None, gate: Tensor, up: Tensor | None) -> tuple[Tensor | None, ...]:
    """The gradients of ``gate`` and ``up``, from the gradient of their :func:`activation`.

    With s = sigmoid(gate): d silu / d gate = s (1 + gate (1 - s)).
    """
    if gradient is None or up is None:
        return gradient, None
    slope = torch.ops.aten.silu_backward(gradient * up, gate)
    return slope, functional.silu(gate).mul_(gradient)


class _GatedProduct(torch.autograd.Function):
    """``silu(gate) * up``, elementwise, for a projection that takes no pair; the backward pass computes silu again."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        """The product, of the shape of both."""
        ctx.save_for_backward(gate, up)
        return activation(gate, up)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of both."""
        return activation_gradients(upstream[0], *ctx.saved_tensors)


class SwiGLU(nn.Module):
    """Transformers' Llama MLP, with its parameters under their names.

    ``down_proj`` gets a pair where its class says ``takes_gated``.
    """

    def __init__(self, gate_proj: nn.Module, up_proj: nn.Module, down_proj: nn.Module) -> None:
        """Take the three projections over."""
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = gate_proj, up_proj, down_proj
        self.computes_again = True  # activation checkpointing computes all again, and sets this to False

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` [..., d_model] to the shape of ``x``."""
        gate, up = self.gate_proj(x), self.up_proj(x)
        compiled = torch.compiler.is_compiling()  # a compiler decides itself what it computes again
        if self.computes_again and not compiled and getattr(self.down_proj, "takes_gated", False):
            return self.down_proj(Gated(gate, up))  # type: ignore[no-any-return]
        mixed = _GatedProduct.apply(gate, up)  # type: ignore[no-untyped-call]
        return self.down_proj(mixed)  # type: ignore[no-any-return]
