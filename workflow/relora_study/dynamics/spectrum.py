"""Singular values, and what is read from them: one decomposition a matrix serves every metric."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

STORED_PRECISION = torch.finfo(torch.float32).eps
GRAM_CONDITION_LIMIT = 1e4


def spectrum(matrix: Tensor | npt.NDArray[np.floating], precision: torch.dtype = torch.float64) -> Tensor:
    """Singular values of each matrix of a batch, largest first.

    ``matrix`` is [..., m, n]; the result is [..., min(m, n)], without unit beyond the matrix's own.
    ``precision`` is that of the decomposition; the published readings took float32.
    A matrix with an infinity or a NaN gives NaN throughout, and leaves the others of its batch alone.
    """
    entries = torch.as_tensor(matrix).detach().to(precision)
    finite = torch.isfinite(entries).all(-1, keepdim=True).all(-2, keepdim=True)
    values = _singular_values(torch.where(finite, entries, 0.0))
    return torch.where(finite.squeeze(-1), values, torch.nan)


def _singular_values(entries: Tensor) -> Tensor:
    """Singular values of finite matrices; in float64 from their Gram matrices, where that is as good and faster.

    Eigenvalues of the Gram matrix carry an error of about eps times the largest, so the smallest singular value
    has a relative error of about eps * CN^2 / 2: 1e-8 at the limit. Matrices beyond it are decomposed themselves.
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
    """exp of the entropy (nats) of the singular values normalised to sum 1 (Roy and Vetterli 2007).

    ``values`` is [..., k], the result [...]: from 1 (rank one) to k (all equal). NaN for a zero matrix.
    """
    shares = values / values.sum(-1, keepdim=True)
    entropy: Tensor = torch.special.entr(shares).sum(-1)
    return entropy.exp()


def proportional_effective_rank(values: Tensor, size: int | None = None) -> Tensor:
    """The effective rank as a share of ``size``, the number of singular values unless said otherwise.

    ``values`` is [..., k], the result [...]. Where ``values`` leave out zeros, as a factored matrix's do,
    ``size`` is min(m, n); a matrix of rank r then cannot exceed r / min(m, n).
    """
    return effective_rank(values) / (size or values.shape[-1])


def condition_number(values: Tensor) -> Tensor:
    """Largest over smallest singular value: ``values`` [..., k] to [...], at least 1; infinity where singular.

    NaN for a zero matrix.
    """
    return values.amax(-1) / values.amin(-1)


def numerical_rank(values: Tensor, shape: tuple[int, int], precision: float = STORED_PRECISION) -> Tensor:
    """How many singular values of an m x n matrix stand above round-off, max(m, n) * precision * largest.

    That is the rule of `numpy.linalg.matrix_rank`; ``precision`` is that of the numbers as they were stored.
    ``values`` is [..., k], the result [...], whole numbers as floats. NaN for a zero matrix.
    """
    largest = values.amax(-1, keepdim=True)
    count = (values > max(shape) * precision * largest).sum(-1).to(values.dtype)
    return torch.where(largest.squeeze(-1) > 0, count, torch.nan)


def frobenius_norm(values: Tensor) -> Tensor:
    """Root of the sum of squares: ``values`` [..., k] to [...]. NaN for a zero matrix, as with every metric."""
    norm = torch.linalg.vector_norm(values, dim=-1)
    return torch.where(norm > 0, norm, torch.nan)


def spectral_metrics(values: Tensor, shape: tuple[int, int], factored: bool = False) -> dict[str, Tensor]:
    """Every metric of m x n matrices, by name, from their singular values: [..., k] to [...] each.

    ``factored`` says that ``values`` are only those that the factors allow: `per` then still counts
    the zeros of the product, and `per_of_rank` compares with k, the rank that the factors allow.
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
    """Why the metrics of one matrix, from its singular values [k], are NaN; empty where they are numbers."""
    if not torch.isfinite(values).all():
        return "non-finite values"
    return "" if values.amax() > 0 else "zero matrix"
