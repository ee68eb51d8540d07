"""Rounding of low-rank products: each singular value beyond the rank is noise of the number format."""

from collections.abc import Callable
from functools import cache

import numpy as np

FORMATS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "float32": lambda matrix: matrix.astype(np.float32),
    "bfloat16": lambda matrix: to_bfloat16(matrix),
}


def to_bfloat16(matrix: np.ndarray) -> np.ndarray:
    """``matrix`` rounded to bfloat16, the upper half of float32's bits (to nearest, ties to even); float32 again."""
    bits = matrix.astype(np.float32).view(np.uint32)
    odd = (bits >> 16) & 1
    return ((bits + 0x7FFF + odd) & 0xFFFF0000).astype(np.uint32).view(np.float32)


@cache
def random_product(width: int, columns: int, rank: int, precision: str) -> tuple[float, float]:
    """Condition number of a Gaussian product [width, columns] of ``rank`` in ``precision``, and PER over its ceiling.

    Without rounding, the condition number would be infinite and the share of the ceiling at most 1.
    """
    random = np.random.default_rng(0)
    exact = random.standard_normal((width, rank)) @ random.standard_normal((rank, columns))
    values = np.linalg.svd(FORMATS[precision](exact).astype(np.float64), compute_uv=False)
    shares = values / values.sum()
    effective = np.exp(-(shares * np.log(shares)).sum())
    return float(values[0] / values[-1]), float(effective / rank)
