"""Matrix products: the one door through which every product of this project's own kernels goes.

Plain reference::

    def matmul(a, b, plus=0):
        return a @ b + plus

    def matmul_transposed(a, b, plus=0):
        return a.mT @ b + plus

PyTorch's usual library for float32 on a CPU is MKL, which uses AVX-512 on Intel's processors alone. oneDNN, which
PyTorch ships for other types, uses AVX-512 wherever it is: on an AMD EPYC at 2.3 times MKL's speed
(benchmarks/README.md). The way to it is `torch.ops.mkldnn._linear_pointwise`, a private operation that torch.compile
calls itself. Where a PyTorch lacks it, or its processor gains nothing, `USE_ONEDNN` is false and `@` and `addmm_` run.
"""

from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T", Tensor, Tensor | None)


def _mkl_is_slow() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    with_avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return with_avx512 and cpuinfo.exists() and "GenuineIntel" not in cpuinfo.read_text()


USE_ONEDNN = _mkl_is_slow() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def matmul(a: Tensor, b: Tensor, plus: Tensor | None = None) -> Tensor:
    """``a`` [m, k] times ``b`` [k, n], plus a tensor [m, n] that may be overwritten. Autograd does not see it."""
    if not fits_onednn(a, b):
        return a @ b if plus is None else plus.addmm_(a, b)
    if plus is None:
        return torch.ops.mkldnn._linear_pointwise(a, b.mT, None, "none", [], "")  # type: ignore[no-any-return]
    return torch.ops.mkldnn._linear_pointwise(a, plus, b.mT, None, "add")  # type: ignore[no-any-return]


def matmul_transposed(a: Tensor, b: Tensor, plus: Tensor | None = None) -> Tensor:
    """``a`` [k, m], transposed, times ``b`` [k, n], plus a tensor [m, n] that may be overwritten.

    oneDNN copies a transposed left side, so the narrower of the two factors is put there.
    """
    if fits_onednn(a, b) and a.shape[1] > b.shape[1]:
        return matmul(b.mT, a, None if plus is None else plus.mT).mT
    return matmul(a.mT, b, plus)


def matmul_transposed_wide(a: Tensor, b: Tensor, plus: Tensor | None = None) -> Tensor:
    """:func:`matmul_transposed` whose result, and ``plus``, are at least float32, for factors of any type.

    An NVIDIA GPU sums bfloat16's products in float32 and writes the sum; elsewhere the product is rounded first.
    """
    if a.dtype.itemsize >= 4:
        return matmul_transposed(a, b, plus)
    if a.is_cuda and torch.version.hip is None:
        wide = torch.float32
        return torch.mm(a.mT, b, out_dtype=wide) if plus is None else torch.addmm(plus, a.mT, b, out_dtype=wide)
    product = matmul_transposed(a, b).to(torch.float32)
    return product if plus is None else plus.add_(product)


def fits_onednn(*operands: Tensor) -> bool:
    """Whether a product of ``operands`` goes to oneDNN; none does under autocast, or where a compiler decides."""
    if not USE_ONEDNN or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    return all(each.device.type == "cpu" and each.dtype == torch.float32 for each in operands)


def as_autocast(*tensors: T) -> tuple[T, ...]:
    """``tensors``, the first of them given, in autocast's type where it is on, else as they are.

    Autocast does not reach the operations that run in place, and these kernels use some.
    """
    kind = next(tensor.device.type for tensor in tensors if tensor is not None)
    if not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(None if tensor is None else tensor.to(dtype) for tensor in tensors)
