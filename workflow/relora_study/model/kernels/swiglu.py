"""SwiGLU (Shazeer 2020) that keeps two wide activations for the backward pass, while plain autograd keeps five.

Plain reference::

    def swiglu(x, gate, up, down):
        return (functional.silu(x @ gate.mT) * (x @ up.mT)) @ down.mT

The last projection takes the two activations as a `Gated` pair instead of their product. The projection's autograd
function keeps the pair, forms the product in the forward pass, and forms it again in the backward pass.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .matmul import multiply


class Gated(NamedTuple):
    """The factors of ``silu(gate) * up``, the input of the last projection; both tensors are [..., width]."""

    gate: Tensor
    up: Tensor

    @property
    def shape(self) -> torch.Size:
        """Return the shape of either tensor, which is also the shape of the product."""
        return self.gate.shape


def as_rows(x: Tensor | Gated) -> tuple[Tensor, Tensor | None]:
    """Flatten ``x`` to matrices [n, width]: (gate, up) for a pair, (x, None) for a tensor."""
    gate, up = x if isinstance(x, Gated) else (x, None)
    return gate.flatten(0, -2), None if up is None else up.flatten(0, -2)


def activation(gate: Tensor, up: Tensor | None) -> Tensor:
    """Return ``silu(gate) * up``, or ``gate`` if ``up`` is None because the input is a plain tensor."""
    return gate if up is None else multiply(functional.silu(gate), up)


def activation_gradients(gradient: Tensor | None, gate: Tensor, up: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return the gradients of ``gate`` and ``up``, from the ``gradient`` of their :func:`activation`.

    With s = sigmoid(gate), d silu / d gate = s (1 + gate (1 - s)).
    """
    if gradient is None or up is None:
        return gradient, None
    slope = torch.ops.aten.silu_backward(gradient * up, gate)
    return slope, functional.silu(gate).mul_(gradient)


class _GatedProduct(torch.autograd.Function):
    """``silu(gate) * up`` for a projection that takes no pair. The backward pass computes silu again."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        """Return the product, of the shape of ``gate`` and ``up``."""
        ctx.save_for_backward(gate, up)
        return activation(gate, up)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of ``gate`` and ``up``."""
        return activation_gradients(upstream[0], *ctx.saved_tensors)


class SwiGLU(nn.Module):
    """Replaces transformers' LlamaMLP; its parameters have the same names, so a state loads into either.

    ``down_proj`` gets a `Gated` pair if its class sets ``takes_gated``.
    """

    def __init__(self, gate_proj: nn.Module, up_proj: nn.Module, down_proj: nn.Module) -> None:
        """Join the three projections."""
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = gate_proj, up_proj, down_proj
        self.computes_again = True  # False under activation checkpointing, which computes the whole layer again

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` [..., d_model] to the shape of ``x``."""
        gate, up = self.gate_proj(x), self.up_proj(x)
        compiled = torch.compiler.is_compiling()  # a compiler decides for itself what to compute again
        if self.computes_again and not compiled and getattr(self.down_proj, "takes_gated", False):
            return self.down_proj(Gated(gate, up))  # type: ignore[no-any-return]
        mixed = _GatedProduct.apply(gate, up)  # type: ignore[no-untyped-call]
        return self.down_proj(mixed)  # type: ignore[no-any-return]
