"""Learning dynamics: spectra of weights, gradients and updates at every checkpoint of a cell.

A notebook can apply the measures to any matrix:

    from relora_study.dynamics import spectral_metrics, spectrum
    metrics = spectral_metrics(spectrum(matrix), matrix.shape)  # per, effective_rank, condition_number, ...
"""

from .measures import (
    condition_number,
    effective_rank,
    frobenius_norm,
    gini,
    hoyer,
    leading_subspaces,
    low_rank_spectrum,
    numerical_rank,
    overlap,
    proportional_effective_rank,
    spectral_metrics,
    spectrum,
    stable_rank,
)
from .passes import linear_cka, mean_cosine

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
    "stable_rank",
]
