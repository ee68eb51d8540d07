"""Do two updates move the same directions? Principal angles between their leading subspaces."""

import torch
from torch import Tensor

from .spectrum import numerical_rank


def leading_subspaces(matrix: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
    """Orthonormal bases of the leading ``dimensions`` left and right singular directions of ``matrix`` [..., m, n].

    Returned are [..., m, k] and [..., n, k], in float64; k is at most min(m, n). Beyond the matrix's numerical rank the
    columns are zero: round-off has no direction. NaN where a matrix is not finite.
    """
    finite = torch.isfinite(matrix).all(-1, keepdim=True).all(-2, keepdim=True)
    left, values, right = torch.linalg.svd(torch.where(finite, matrix.double(), 0.0), full_matrices=False)
    rows, columns = matrix.shape[-2:]
    rank = numerical_rank(values, (rows, columns)).nan_to_num()
    kept = (torch.arange(values.shape[-1], device=rank.device) < rank.unsqueeze(-1)).unsqueeze(-2)
    bases = (part[..., :dimensions] * kept[..., :dimensions] for part in (left, right.mT))
    return tuple(torch.where(finite, basis, torch.nan) for basis in bases)  # type: ignore[return-value]


def overlap(one: Tensor, other: Tensor) -> Tensor:
    """Mean squared cosine of the principal angles between the spans of bases [..., m, k] (Bjorck and Golub 1973).

    The result is [...]: 1 where the smaller lies in the other, 0 for orthogonal ones, k / m on average for random ones
    of k dimensions. Zero columns of a basis do not count; NaN where a basis has no other.
    """
    dimensions = torch.minimum(*(basis.square().sum((-2, -1)).round() for basis in (one, other)))
    return (one.mT @ other).square().sum((-2, -1)) / dimensions
