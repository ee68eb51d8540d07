"""Compute a frozen linear layer and its low-rank adapter in one operation.

Plain reference::

    def adapted_linear(x, weight, A, B, scale, dropout=0.0):
        return x @ weight.mT + scale * functional.dropout(x, dropout) @ A.mT @ B.mT

Three things make it fast. The product with W and the product with the adapter share one buffer, and W gets no gradient.
Each narrow product takes its factors in the order that is fastest on a CPU (benchmarks/README.md). The scale and
dropout's 1 / (1 - p) are multiplied into B, the smallest factor.
"""

from typing import Any

import torch
from torch import Tensor

from .dropout import keep_mask
from .matmul import as_autocast, matmul, matmul_transposed
from .swiglu import Gated, activation, activation_gradients, as_rows


class _AdaptedLinear(torch.autograd.Function):
    """``x W^T + (x * keep) A^T C`` for W [out, in], A [rank, in], C [rank, out] and an optional mask ``keep`` [n, in].

    x [n, in] is the :func:`activation` of the first two arguments.
    """

    @staticmethod
    def forward(
        ctx: Any, gate: Tensor, up: Tensor | None, weight: Tensor, a: Tensor, c: Tensor, keep: Tensor | None
    ) -> Tensor:
        """Return the output, [n, out]."""
        x = activation(gate, up)
        narrow = matmul(_thinned(x, keep), a.mT)
        ctx.save_for_backward(gate, up, weight, a, c, keep, narrow)
        return matmul(narrow, c, plus=matmul(x, weight.mT))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all arguments, None for W and the mask."""
        (gradient,) = upstream
        gate, up, weight, a, c, keep, narrow = ctx.saved_tensors
        narrow_gradient = matmul(gradient, c.mT)
        mask = None if keep is None else keep.to(gate.dtype)
        a_gradient = matmul_transposed(narrow_gradient, _thinned(activation(gate, up), mask))
        x_gradient = matmul(gradient, weight, plus=_thinned(matmul(narrow_gradient, a), mask))
        c_gradient = matmul_transposed(narrow, gradient)
        return *activation_gradients(x_gradient, gate, up), None, a_gradient, c_gradient, None


def _thinned(x: Tensor, keep: Tensor | None) -> Tensor:
    """Zero ``x`` where ``keep`` is false or 0. Multiplying by numbers takes a sixth of the time of booleans."""
    return x if keep is None else x * keep.to(x.dtype)


def adapted_linear(
    x: Tensor | Gated, weight: Tensor, a: Tensor, b: Tensor, scale: Tensor | float, dropout: float = 0.0
) -> Tensor:
    """Compute ``x W^T + scale * dropout(x) A^T B^T``, x [..., in] to [..., out], for A [rank, in] and B [out, rank].

    W is ``weight`` [out, in] and gets no gradient. ``dropout`` is the probability that the adapter sees a zero input.
    """
    gate, up = as_rows(x)
    keep = keep_mask(gate, dropout) if dropout else None
    c = (b * (scale / (1.0 - dropout))).mT.contiguous()
    mapped = _AdaptedLinear.apply(*as_autocast(gate, up, weight, a, c), keep)  # type: ignore[no-untyped-call]
    return mapped.view(*x.shape[:-1], -1)  # type: ignore[no-any-return]
