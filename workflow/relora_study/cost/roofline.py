"""Derive how fast a GPU would train a cell, from what its kernels move and compute: a roofline (Williams et al. 2009).

A kernel takes the longer of the time to move its bytes and the time to compute. The data sheets give the peaks of both.
The fractions of the peaks that kernels reach are assumptions, so a time is an estimate until it is measured.
"""

from typing import NamedTuple

from ..config import Cell
from .micro_batch import micro_batch_kernels
from .operations import flops_per_token, micro_batch_rows
from .traffic import Kernel, Kernels


class Gpu(NamedTuple):
    """Rates that a GPU reaches, but for ``peak``, which is the data sheet's."""

    peak: float  # dense bfloat16 operations a second, summed in float32
    bytes: float  # a second
    product: float  # operations a second in bfloat16
    narrow_product: float  # the same where some width is below `traffic.WIDE`
    float32_product: float  # operations a second, without TF32
    attention: float  # operations a second
    launch: float = 36e-6  # seconds between two kernels that Python starts: 31 to 49 beside an H200 (docs/results)


def from_data_sheet(peak: float, bandwidth: float, float32: float, attention: float) -> Gpu:
    """Return the rates of a GPU with these peaks, of which kernels reach fractions that we assume.

    Streaming kernels usually reach 80 % of a bandwidth, and large products 60 to 70 % of a peak. Narrow products fill
    half of their tiles or less. ``attention`` is the fraction of ``peak`` that flash attention reaches at narrow heads.
    """
    return Gpu(peak, 0.8 * bandwidth, 0.65 * peak, 0.3 * peak, 0.7 * float32, attention * peak)


# From NVIDIA's data sheets: "A100 80GB" (SXM), "H100 Tensor Core GPU" and "H200 Tensor Core GPU" (SXM; half of their
# numbers, which are for sparse matrices), and "Ada GPU architecture", appendix A (RTX 4090). PyTorch's flash attention
# is made for the A100, and leaves more of an H100 idle.
GPUS = {
    "A100": from_data_sheet(312e12, 2.04e12, 19.5e12, attention=0.25),
    "H100": from_data_sheet(989e12, 3.35e12, 67e12, attention=0.13),
    "H200": from_data_sheet(989e12, 4.8e12, 67e12, attention=0.13),
    "RTX 4090": from_data_sheet(165e12, 1.01e12, 82.6e12, attention=0.25),
}


def expected_tokens_per_second(cell: Cell, gpu: Gpu, compiled: bool) -> float:
    """Return the tokens a second that one GPU would train; more GPUs train as many each, without their messages."""
    seconds = expected_seconds(micro_batch_kernels(cell, compiled), gpu)
    return micro_batch_rows(cell) * cell.model.context_length / seconds


def expected_seconds(counted: Kernels, gpu: Gpu) -> float:
    """Return the seconds that ``counted`` kernels take on ``gpu``, or Python takes to start them if that is longer."""
    launching = gpu.launch * sum(counted.values())
    return max(launching, sum(times * kernel_seconds(kernel, gpu) for kernel, times in counted.items()))


def kernel_seconds(kernel: Kernel, gpu: Gpu) -> float:
    """Return the seconds of one ``kernel``: to move its bytes or to compute, whichever is longer."""
    moving = kernel.bytes / gpu.bytes
    if not kernel.flops:
        return moving
    rate: float = getattr(gpu, kernel.kind.replace(" ", "_"))
    return max(moving, kernel.flops / rate)


def share_of_peak(cell: Cell, gpu: Gpu, tokens_per_second: float) -> float:
    """Return the share of the GPU's peak that a training uses, by the operations of `operations.flops_per_token`."""
    return tokens_per_second * flops_per_token(cell) / gpu.peak
