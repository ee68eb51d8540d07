"""Compute singular values, and metrics from them: one decomposition of a matrix serves every metric."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

STORED_PRECISION = torch.finfo(torch.float32).eps
GRAM_CONDITION_LIMIT = 1e4


def spectrum(matrix: Tensor | npt.NDArray[np.floating], precision: torch.dtype = torch.float64) -> Tensor:
    """Compute the singular values of each matrix of a batch, largest first.

    ``matrix`` is [..., m, n], and the result [..., min(m, n)], in the matrix's unit. ``precision`` is the type of the
    decomposition; the published readings used float32. A matrix with an infinity or a NaN gives NaN for all its values,
    and does not affect the other matrices of its batch.
    """
    entries = torch.as_tensor(matrix).detach().to(precision)
    finite = torch.isfinite(entries).all(-1, keepdim=True).all(-2, keepdim=True)
    values = _singular_values(torch.where(finite, entries, 0.0))
    return torch.where(finite.squeeze(-1), values, torch.nan)


def _singular_values(entries: Tensor) -> Tensor:
    """Compute the singular values of finite matrices; in float64, from Gram matrices where these are accurate.

    That is faster. Eigenvalues of the Gram matrix have an error of about eps times the largest. So the smallest
    singular value has a relative error of about eps * CN^2 / 2, which is 1e-8 at the limit. Matrices with a higher CN
    get a full decomposition.
    """
    if entries.dtype != torch.float64 or entries.ndim < 2:
        plain: Tensor = torch.linalg.svdvals(entries)
        return plain
    wide = entries if entries.shape[-2] <= entries.shape[-1] else entries.mT
    values: Tensor = torch.linalg.eigvalsh(wide @ wide.mT).clamp(min=0.0).sqrt().flip(-1)
    poor = ~(values[..., 0] < GRAM_CONDITION_LIMIT * values[..., -1])
    if poor.any():
        values[poor] = torch.linalg.svdvals(entries[poor])
    return values


def effective_rank(values: Tensor) -> Tensor:
    """Compute exp of the entropy (nats) of the singular values normalised to sum 1 (Roy and Vetterli 2007).

    ``values`` is [..., k], the result [...]: from 1 (rank one) to k (all equal). NaN for a zero matrix.
    """
    shares = values / values.sum(-1, keepdim=True)
    entropy: Tensor = torch.special.entr(shares).sum(-1)
    return entropy.exp()


def proportional_effective_rank(values: Tensor, size: int | None = None) -> Tensor:
    """Compute the effective rank over ``size``, by default the number k of ``values`` [..., k] to [...].

    For a factored matrix, ``values`` leave out the zeros, so ``size`` must be min(m, n). A matrix of rank r then has
    at most r / min(m, n).
    """
    return effective_rank(values) / (size or values.shape[-1])


def condition_number(values: Tensor) -> Tensor:
    """Compute the largest over the smallest singular value, ``values`` [..., k] to [...].

    It is at least 1, infinite for a singular matrix, and NaN for a zero matrix.
    """
    return values.amax(-1) / values.amin(-1)


def numerical_rank(values: Tensor, shape: tuple[int, int], precision: float = STORED_PRECISION) -> Tensor:
    """Count the singular values of an m x n matrix that exceed round-off, max(m, n) * precision * largest.

    `numpy.linalg.matrix_rank` has this rule. ``precision`` is the relative precision of the stored entries.
    ``values`` is [..., k], and the result [...] holds whole numbers as floats, NaN for a zero matrix.
    """
    largest = values.amax(-1, keepdim=True)
    count = (values > max(shape) * precision * largest).sum(-1).to(values.dtype)
    return torch.where(largest.squeeze(-1) > 0, count, torch.nan)


def frobenius_norm(values: Tensor) -> Tensor:
    """Compute the root of the sum of squares, ``values`` [..., k] to [...]; NaN for a zero matrix, as every metric."""
    norm = torch.linalg.vector_norm(values, dim=-1)
    return torch.where(norm > 0, norm, torch.nan)


def spectral_metrics(values: Tensor, shape: tuple[int, int], factored: bool = False) -> dict[str, Tensor]:
    """Compute every metric of m x n matrices by name, from their singular values, [..., k] to [...] each.

    With ``factored``, ``values`` leave out the zeros beyond the rank k that the factors allow. The metric ``per`` still
    divides by min(m, n), and ``per_of_rank`` divides by k.
    """
    values = values.double()
    metrics = {
        "per": proportional_effective_rank(values, min(shape)),
        "effective_rank": effective_rank(values),
        "condition_number": condition_number(values),
        "numerical_rank": numerical_rank(values, shape),
        "frobenius_norm": frobenius_norm(values),
    }
    return metrics | {"per_of_rank": proportional_effective_rank(values)} if factored else metrics


def reason(values: Tensor) -> str:
    """Say why the metrics of a matrix with singular values [k] are NaN, or return an empty text if they are numbers."""
    if not torch.isfinite(values).all():
        return "non-finite values"
    return "" if values.amax() > 0 else "zero matrix"
