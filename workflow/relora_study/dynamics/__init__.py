"""Learning dynamics: spectra of weights, gradients and updates at every checkpoint of a cell.

A notebook can apply the measures to any matrix:

    from relora_study.dynamics import spectral_metrics, spectrum
    metrics = spectral_metrics(spectrum(matrix), matrix.shape)  # per, effective_rank, condition_number, ...
"""

from .low_rank import low_rank_spectrum
from .representations import linear_cka, mean_cosine
from .sparsity import gini, hoyer
from .spectrum import (
    condition_number,
    effective_rank,
    frobenius_norm,
    numerical_rank,
    proportional_effective_rank,
    spectral_metrics,
    spectrum,
)
from .subspaces import leading_subspaces, overlap

__all__ = [
    "condition_number",
    "effective_rank",
    "frobenius_norm",
    "gini",
    "hoyer",
    "leading_subspaces",
    "linear_cka",
    "low_rank_spectrum",
    "mean_cosine",
    "numerical_rank",
    "overlap",
    "proportional_effective_rank",
    "spectral_metrics",
    "spectrum",
]
