"""What an optimizer could do at a checkpoint with low-rank factors, beside what Adam would do on the whole weight.

All functions are batched over layers: a gradient G with respect to W + s B A is [layers, out, in], A is
[layers, r, in], B is [layers, out, r], and s is the factor of B A.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .measures import leading_subspaces

ROUND_OFF = 1e-12  # of a squared singular value, over the largest
INTRUDER_COSINE = 0.5  # Shuttleworth et al. 2024 (arXiv:2410.21228), figure 5: their results hold from 0.4 to 0.9


def gradient_share(gradient: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """Compute the share of the gradient's squared norm that an infinitesimal step of A and B can follow, [layers].

    Such a step moves B A within {X A + B Y}, whose orthogonal complement holds (I - P) G (I - Q), where P projects on
    the columns of B and Q on the rows of A (Vandereycken 2013, section 2). At B = 0 only the rows of A are left, so
    about r / in of a gradient without direction; NaN for a zero gradient.
    """
    rank = down.shape[-2]
    columns, rows = leading_subspaces(up, rank)[0], leading_subspaces(down, rank)[1]
    outside = gradient.double()
    outside = outside - columns @ (columns.mT @ outside)
    outside = outside - (outside @ rows) @ rows.mT
    return 1.0 - outside.square().sum((-2, -1)) / gradient.double().square().sum((-2, -1))


class FirstStep(NamedTuple):
    """The first step from empty moments on factors, beside Adam's on the whole weight, [layers] each."""

    cosine_with_adam: Tensor
    norm_over_adam: Tensor
    cosine_with_descent: Tensor


def first_step(gradient: Tensor, down: Tensor, up: Tensor, scale: float) -> FirstStep:
    """Compare the first step of W + s B A that Adam takes on A and B with the one that it takes on W at the same rate.

    From empty moments Adam steps by the sign of a gradient (Kingma and Ba 2015, section 2.1), so W moves by -sign(G),
    and W + s B A, at a small rate, by -s (sign(G A^T) A + B sign(B^T G)) where s is above 0. Descent is -G.
    """
    entries = gradient.double()
    of_up, of_down = (entries @ down.double().mT).sign(), (up.double().mT @ entries).sign()
    step, adam = -scale * (of_up @ down.double() + up.double() @ of_down), -entries.sign()
    lengths = [torch.linalg.matrix_norm(matrix) for matrix in (step, adam, entries)]
    return FirstStep(
        (step * adam).sum((-2, -1)) / (lengths[0] * lengths[1]),
        lengths[0] / lengths[1],
        -(step * entries).sum((-2, -1)) / (lengths[0] * lengths[2]),
    )


def intruders(now: Tensor, then: Tensor, dimensions: int) -> Tensor:
    """Count the leading left singular directions of ``now`` [layers, m, n] that no direction of ``then`` is near.

    Of the first ``dimensions``, those count whose cosine with every left singular direction of ``then`` stays below
    ``INTRUDER_COSINE``, [layers] (Shuttleworth et al. 2024, "intruder dimensions"); NaN where a number is not finite.
    """
    leading, before = _left_directions(now, dimensions), _left_directions(then, min(then.shape[-2:]))
    nearest = (leading.mT @ before).abs().amax(-1)
    real = leading.square().sum(-2) > 0  # round-off has no direction
    counts = ((nearest < INTRUDER_COSINE) & real).sum(-1).double()
    finite = (now + then).isfinite().all(-1).all(-1)
    return torch.where(finite, counts, torch.nan)


def _left_directions(matrix: Tensor, count: int) -> Tensor:
    """The first ``count`` left singular directions, [layers, m, count], zero where they are round-off.

    From the Gram matrix, which takes a fraction of an SVD's time where half of the digits are enough.
    """
    entries = matrix.double().nan_to_num(0.0, 0.0, 0.0)
    squares, directions = torch.linalg.eigh(entries @ entries.mT)
    real = squares > squares.amax(-1, keepdim=True) * ROUND_OFF
    known: Tensor = directions * real.unsqueeze(-2)
    return known.flip(-1)[..., :count]
