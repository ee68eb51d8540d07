"""Do two updates move the same directions? Principal angles between their leading subspaces."""

import torch
from torch import Tensor


def leading_subspaces(matrix: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
    """Orthonormal bases of the leading ``dimensions`` left and right singular directions of ``matrix`` [..., m, n].

    Returned are [..., m, k] and [..., n, k], in float64; k is at most min(m, n). NaN where a matrix is not finite.
    """
    finite = torch.isfinite(matrix).all(-1, keepdim=True).all(-2, keepdim=True)
    left, _, right = torch.linalg.svd(torch.where(finite, matrix.double(), 0.0), full_matrices=False)
    bases = left[..., :dimensions], right[..., :dimensions, :].mT
    return torch.where(finite, bases[0], torch.nan), torch.where(finite, bases[1], torch.nan)


def overlap(one: Tensor, other: Tensor) -> Tensor:
    """Mean squared cosine of the principal angles between the spans of bases [..., m, k] (Bjorck and Golub 1973).

    The result is [...]: 1 for the same subspace, 0 for orthogonal ones, k / m on average for random ones.
    """
    return (one.mT @ other).square().sum((-2, -1)) / one.shape[-1]
