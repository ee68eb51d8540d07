"""Measure how unevenly the magnitudes of a matrix's entries are spread."""

import math

import torch
from torch import Tensor


def gini(entries: Tensor) -> Tensor:
    """Compute the Gini coefficient of the magnitudes of ``entries`` [..., n] to [...] (Hurley and Rickard 2009).

    With magnitudes in ascending order x_1..x_n, it is 2 sum(i x_i) / (n sum(x_i)) - (n + 1) / n: 0 if all are equal,
    1 - 1/n if only one is not zero, NaN if all are zero.
    """
    ordered = entries.abs().double().sort(-1).values
    count = ordered.shape[-1]
    places = torch.arange(1, count + 1, dtype=torch.float64, device=entries.device)
    return 2 * (ordered * places).sum(-1) / (count * ordered.sum(-1)) - (count + 1) / count


def hoyer(entries: Tensor) -> Tensor:
    """Compute Hoyer's sparsity (2004) of ``entries`` [..., n] to [...]: (sqrt n - |x|_1 / |x|_2) / (sqrt n - 1).

    It is 0 if all magnitudes are equal, 1 if only one is not zero, NaN if all are zero.
    """
    magnitudes = entries.abs().double()
    root = math.sqrt(magnitudes.shape[-1])
    ratio: Tensor = magnitudes.sum(-1) / torch.linalg.vector_norm(magnitudes, dim=-1)
    return (root - ratio) / (root - 1)
