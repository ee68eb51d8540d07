"""Measure by principal angles whether two updates move in common directions."""

import torch
from torch import Tensor

from .spectrum import numerical_rank


def leading_subspaces(matrix: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
    """Return orthonormal bases of the leading left and right singular directions of ``matrix`` [..., m, n].

    The bases are [..., m, k] and [..., n, k] in float64, for k = min(``dimensions``, m, n). Columns beyond the
    numerical rank are zero, because round-off has no direction. A matrix that is not finite gives NaN.
    """
    finite = torch.isfinite(matrix).all(-1, keepdim=True).all(-2, keepdim=True)
    left, values, right = torch.linalg.svd(torch.where(finite, matrix.double(), 0.0), full_matrices=False)
    rows, columns = matrix.shape[-2:]
    rank = numerical_rank(values, (rows, columns)).nan_to_num()
    kept = (torch.arange(values.shape[-1], device=rank.device) < rank.unsqueeze(-1)).unsqueeze(-2)
    bases = (part[..., :dimensions] * kept[..., :dimensions] for part in (left, right.mT))
    return tuple(torch.where(finite, basis, torch.nan) for basis in bases)  # type: ignore[return-value]


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """Compute the mean squared cosine of the principal angles between two bases [..., m, k] to [...].

    Bjorck and Golub 1973. The result is 1 if the smaller space lies in the larger, 0 if they are orthogonal, and k / m
    on average for random spaces of k dimensions. Zero columns do not count. A basis of zero columns alone gives NaN.
    """
    dimensions = torch.minimum(*(basis.square().sum((-2, -1)).round() for basis in (first, second)))
    return (first.mT @ second).square().sum((-2, -1)) / dimensions
