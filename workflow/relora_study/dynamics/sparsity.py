"""How unevenly a matrix's entries are spread, whatever their signs."""

import math

import torch
from torch import Tensor


def gini(entries: Tensor) -> Tensor:
    """Gini coefficient of magnitudes, ``entries`` [..., n] to [...]: 0 all equal, 1 - 1/n a single one.

    With magnitudes in ascending order x_1..x_n: 2 sum(i x_i) / (n sum(x_i)) - (n + 1) / n (Hurley and Rickard 2009).
    NaN where all are zero.
    """
    ordered = entries.abs().double().sort(-1).values
    count = ordered.shape[-1]
    places = torch.arange(1, count + 1, dtype=torch.float64, device=entries.device)
    return 2 * (ordered * places).sum(-1) / (count * ordered.sum(-1)) - (count + 1) / count


def hoyer(entries: Tensor) -> Tensor:
    """Hoyer's sparsity (2004), ``entries`` [..., n] to [...]: (sqrt n - |x|_1 / |x|_2) / (sqrt n - 1).

    0 where all magnitudes are equal, 1 for a single one, NaN where all are zero.
    """
    magnitudes = entries.abs().double()
    root = math.sqrt(magnitudes.shape[-1])
    ratio: Tensor = magnitudes.sum(-1) / torch.linalg.vector_norm(magnitudes, dim=-1)
    return (root - ratio) / (root - 1)
