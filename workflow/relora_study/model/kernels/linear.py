"""A linear layer that uses the products of `matmul`, and that takes a tensor or the two activations of a SwiGLU.

Plain reference::

    def linear(x, weight, bias=0.0):
        return x @ weight.mT + bias

    def gated_linear(gate, up, weight):
        return (functional.silu(gate) * up) @ weight.mT
"""

from typing import Any

import torch
from torch import Tensor, nn

from .matmul import as_autocast, fits_onednn, matmul, matmul_transposed
from .swiglu import Gated, activation, activation_gradients, as_rows


class _Linear(torch.autograd.Function):
    """``x W^T`` for W [out, in] and x [n, in], where x is the :func:`activation` of the first two arguments."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor | None, weight: Tensor) -> Tensor:
        """Return the product, [n, out]."""
        ctx.save_for_backward(gate, up, weight)
        return matmul(activation(gate, up), weight.mT)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the arguments."""
        (gradient,), (gate, up, weight) = upstream, ctx.saved_tensors
        *of_x, of_weight = ctx.needs_input_grad
        weight_gradient = matmul_transposed(gradient, activation(gate, up)) if of_weight else None
        x_gradient = matmul(gradient, weight) if any(of_x) else None
        return *activation_gradients(x_gradient, gate, up), weight_gradient


class Linear(nn.Linear):
    """PyTorch's linear layer, with this project's products where they are faster."""

    takes_gated = True  # `forward` accepts a `Gated` pair

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Make a layer of ``weight`` [out, in] and, unless it is None, ``bias`` [out]."""
        super().__init__(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
        self.weight = weight
        self.bias = bias  # type: ignore[assignment]  # nn.Linear's, which is None without one

    def forward(self, input: Tensor | Gated) -> Tensor:
        """Map ``input`` [..., in] to [..., out]."""
        if isinstance(input, Tensor) and not fits_onednn(input, self.weight):
            return super().forward(input)
        gate, up = as_rows(input)
        mapped = _Linear.apply(*as_autocast(gate, up, self.weight))  # type: ignore[no-untyped-call]
        output: Tensor = mapped.view(*input.shape[:-1], -1)
        return output if self.bias is None else output + self.bias


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers of ``model`` by name, in the model's order, without the adapted layers."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
