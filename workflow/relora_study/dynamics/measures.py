"""Measures of matrices: spectra and metrics from them, sparsity, common directions, and the circuits of attention.

One decomposition of a matrix serves every metric. A product of known factors has only the singular values that its rank
allows, so its spectrum is taken from the factors, without round-off.

The circuits multiply the value and output projections of attention heads, in the authors' order and in the field's.
They are batched over layers, and take the projections as `torch.nn.Linear` stores them: ``value`` is
[layers, groups * head_dim, d_model] and ``output`` [layers, d_model, heads * head_dim]. Head h uses the values of group
h // (heads / groups), as in `transformers`.
"""

import math

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


def stable_rank(values: Tensor) -> Tensor:
    """Compute the sum of squares over the largest square, ``values`` [..., k] to [...] (Rudelson and Vershynin 2007).

    It is at least 1 and at most the rank, and small singular values hardly count; NaN for a zero matrix.
    """
    return values.square().sum(-1) / values.amax(-1).square()


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
        "spectral_norm": torch.where(values.amax(-1) > 0, values.amax(-1), torch.nan),
        "stable_rank": stable_rank(values),
    }
    return metrics | {"per_of_rank": proportional_effective_rank(values)} if factored else metrics


def reason(values: Tensor) -> str:
    """Say why the metrics of a matrix with singular values [k] are NaN, or return an empty text if they are numbers."""
    if not torch.isfinite(values).all():
        return "non-finite values"
    return "" if values.amax() > 0 else "zero matrix"


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


def head_slices(value: Tensor, output: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cut out each head: values [layers, heads, head_dim, d_model], outputs [layers, heads, d_model, head_dim]."""
    layers, d_model = output.shape[:2]
    outputs = output.reshape(layers, d_model, -1, head_dim).movedim(-2, -3)
    groups = value.reshape(layers, -1, head_dim, d_model)
    values = groups.repeat_interleave(outputs.shape[-3] // groups.shape[-3], dim=-3)
    return values, outputs


def authors_ov(value: Tensor, output: Tensor, head_dim: int) -> Tensor:
    """Return the paper's "OV circuit", V_g O_h of every head side by side: [layers, head_dim, heads * head_dim].

    A head gives a block of head_dim x head_dim. The field's OV circuit multiplies in the opposite order.
    """
    values, outputs = head_slices(value, output, head_dim)
    return torch.cat((values @ outputs).unbind(-3), dim=-1)


def ov_circuit_factors(value: Tensor, output: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Return two factors of the field's OV circuit W_O^h W_V^g of every head (Elhage et al. 2021), d_model x d_model.

    The left factor is [layers, heads, d_model, head_dim], and the right factor [layers, heads, head_dim, d_model].
    """
    values, outputs = head_slices(value, output, head_dim)
    return outputs, values
