"""Float32 matrix products by oneDNN where PyTorch's usual library, MKL, leaves half of a processor unused.

MKL takes AVX-512 on Intel's processors alone; oneDNN, which PyTorch brings along for other types, takes it wherever it
is. On an AMD EPYC that is 2.3 times MKL's speed (benchmarks/README.md).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def _mkl_is_slow() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    with_avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return with_avx512 and cpuinfo.exists() and "GenuineIntel" not in cpuinfo.read_text()


USE_ONEDNN = _mkl_is_slow() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # torch.compile's own operation


def matmul(a: Tensor, b: Tensor, plus: Tensor | None = None) -> Tensor:
    """``a`` [m, k] times ``b`` [k, n], plus a tensor [m, n] that may be overwritten. Autograd does not see it."""
    if not fits_onednn(a, b):
        return a @ b if plus is None else plus.addmm_(a, b)
    if plus is None:
        return torch.ops.mkldnn._linear_pointwise(a, b.mT, None, "none", [], "")  # type: ignore[no-any-return]
    return torch.ops.mkldnn._linear_pointwise(a, plus, b.mT, None, "add")  # type: ignore[no-any-return]


def matmul_transposed(a: Tensor, b: Tensor, plus: Tensor | None = None) -> Tensor:
    """``a`` [k, m], transposed, times ``b`` [k, n], as above. oneDNN copies a transposed left side: the smaller."""
    if fits_onednn(a, b) and a.shape[1] > b.shape[1]:
        return matmul(b.mT, a, None if plus is None else plus.mT).mT
    return matmul(a.mT, b, plus)


def fits_onednn(*operands: Tensor) -> bool:
    """Whether a product of ``operands`` goes to oneDNN; none does under autocast, or where a compiler decides."""
    if not USE_ONEDNN or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    return all(each.device.type == "cpu" and each.dtype == torch.float32 for each in operands)


class _Product(torch.autograd.Function):
    """``x W^T`` for x [n, in] and W [out, in]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """The product, [n, out]."""
        ctx.save_for_backward(x, weight)
        return matmul(x, weight.mT)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of x and W."""
        (gradient,), (x, weight) = upstream, ctx.saved_tensors
        of_x, of_weight = ctx.needs_input_grad
        return matmul(gradient, weight) if of_x else None, matmul_transposed(gradient, x) if of_weight else None


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers by name, in the model's order; adapted ones are none."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


class Linear(nn.Linear):
    """PyTorch's linear layer without a bias, with the products of this module where they are faster."""

    def __init__(self, weight: Tensor) -> None:
        """Take ``weight`` [out, in] over."""
        super().__init__(weight.shape[1], weight.shape[0], bias=False, device="meta")
        self.weight = weight

    def forward(self, input: Tensor) -> Tensor:
        """Map ``input`` [..., in] to [..., out]."""
        if not fits_onednn(input, self.weight):
            return super().forward(input)
        mapped = _Product.apply(input.flatten(0, -2), self.weight)  # type: ignore[no-untyped-call]
        return mapped.view(*input.shape[:-1], -1)  # type: ignore[no-any-return]
