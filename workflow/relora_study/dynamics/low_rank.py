"""Spectra of products that are kept as factors: exactly as many singular values as the rank allows."""

import torch
from torch import Tensor

from .spectrum import spectrum


def low_rank_spectrum(left: Tensor, right: Tensor) -> Tensor:
    """Singular values of ``left @ right``, largest first, in float64 and without forming the product.

    ``left`` is [..., m, r] and ``right`` [..., r, n], r at most min(m, n); the result is [..., r].
    With left = Q R and right^T = P S the product is Q (R S^T) P^T, and Q and P have orthonormal columns:
    the r x r core R S^T has the product's non-zero singular values (Golub and Van Loan 2013, section 5.4.3),
    and none of the round-off that fills up the other min(m, n) - r.
    """
    left_triangle = torch.linalg.qr(left.detach().double()).R
    right_triangle = torch.linalg.qr(right.detach().double().mT).R
    return spectrum(left_triangle @ right_triangle.mT)
