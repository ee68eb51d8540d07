"""Matrix products for this project's kernels, by the fastest library that the processor has.

Plain reference::

    def matmul(a, b, plus=0):
        return a @ b + plus

    def matmul_transposed(a, b, plus=0):
        return a.mT @ b + plus

For float32 on a CPU, PyTorch calls MKL, which uses AVX-512 on Intel's processors alone. PyTorch also ships oneDNN,
which uses AVX-512 on every processor that has it: on an AMD EPYC, it is 2.3 times as fast (benchmarks/README.md).
`torch.ops.mkldnn._linear_pointwise`, a private operation that torch.compile uses, calls oneDNN. If this PyTorch lacks
the operation, or the processor gains nothing, `USE_ONEDNN` is false, and `@` and `addmm_` run.
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
    """Return ``a`` [m, k] times ``b`` [k, n], plus ``plus`` [m, n], which may be overwritten; without autograd."""
    if not fits_onednn(a, b):
        return a @ b if plus is None else _added(plus, a, b)
    if plus is None:
        return torch.ops.mkldnn._linear_pointwise(a, b.mT, None, "none", [], "")  # type: ignore[no-any-return]
    return torch.ops.mkldnn._linear_pointwise(a, plus, b.mT, None, "add")  # type: ignore[no-any-return]


def _added(plus: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.addmm(plus, a, b) if torch.compiler.is_compiling() else plus.addmm_(a, b)


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a * b``, in the memory of ``a`` but under torch.compile, for the end of an autograd function's forward.

    If such a function returns what an operation gave back unchanged or changed in place, the backward pass that
    PyTorch 2.11 compiles has zeros for its gradients, and says nothing.
    """
    return a * b if torch.compiler.is_compiling() else a.mul_(b)


def matmul_transposed(a: Tensor, b: Tensor, plus: Tensor | None = None) -> Tensor:
    """Return the transpose of ``a`` [k, m] times ``b`` [k, n], plus ``plus`` [m, n], which may be overwritten.

    oneDNN copies a transposed left factor, so the narrower factor goes to the left.
    """
    if fits_onednn(a, b) and a.shape[1] > b.shape[1]:
        return matmul(b.mT, a, None if plus is None else plus.mT).mT
    return matmul(a.mT, b, plus)


def matmul_transposed_wide(a: Tensor, b: Tensor, plus: Tensor | None = None) -> Tensor:
    """Compute :func:`matmul_transposed` with a result, and a ``plus``, of float32 or wider for factors of any type.

    An NVIDIA GPU sums the products of bfloat16 factors in float32 and returns this sum. Other devices round the product
    to bfloat16 first.
    """
    if a.dtype.itemsize >= 4:
        return matmul_transposed(a, b, plus)
    if a.device.type == "cuda" and torch.version.hip is None:
        wide = torch.float32
        return torch.mm(a.mT, b, out_dtype=wide) if plus is None else torch.addmm(plus, a.mT, b, out_dtype=wide)
    product = matmul_transposed(a, b).to(torch.float32)
    return product if plus is None else plus.add_(product)


def fits_onednn(*operands: Tensor) -> bool:
    """Tell whether oneDNN takes a product of ``operands``; it takes none under autocast or torch.compile."""
    if not USE_ONEDNN or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    return all(each.device.type == "cpu" and each.dtype == torch.float32 for each in operands)


def as_autocast(*tensors: T) -> tuple[T, ...]:
    """Convert ``tensors`` to autocast's type if autocast is on; the first tensor that is not None gives the device.

    Autocast does not reach operations that run in place, and these kernels use some.
    """
    kind = next(tensor.device.type for tensor in tensors if tensor is not None)
    if not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(None if tensor is None else tensor.to(dtype) for tensor in tensors)
