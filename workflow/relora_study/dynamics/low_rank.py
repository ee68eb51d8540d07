"""Take the spectrum of a product from its factors: only the singular values that the rank allows, no round-off."""

import torch
from torch import Tensor

from .spectrum import spectrum


def low_rank_spectrum(left: Tensor, right: Tensor) -> Tensor:
    """Return the singular values of ``left @ right``, largest first, in float64, without forming the product.

    ``left`` is [..., m, r] and ``right`` [..., r, n], r at most min(m, n); the result is [..., r].
    With left = Q R and right^T = P S the product is Q (R S^T) P^T, and Q and P have orthonormal columns:
    the r x r core R S^T has the product's non-zero singular values (Golub and Van Loan 2013, section 5.4.3),
    and no round-off in place of the min(m, n) - r zeros.
    """
    left_triangle = torch.linalg.qr(left.detach().double()).R
    right_triangle = torch.linalg.qr(right.detach().double().mT).R
    return spectrum(left_triangle @ right_triangle.mT)
