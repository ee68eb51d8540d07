"""Differences between methods that share a seed's first weights, data order and evaluation items: paired by seed."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

CONFIDENCE = 0.95


@dataclass(frozen=True)
class PairedDifference:
    """The mean of a method's values minus those of its reference at equal seeds.

    ``low`` and ``high`` are Student's 95 % interval of the mean; ``p`` is the exact two-sided sign-flip test's
    (Fisher 1935): of all ways to swap the two methods at each seed, the share whose mean is as far from 0. With n seeds
    it cannot fall below 2 / 2^n. All three are NaN for fewer than two seeds.
    """

    seeds: int
    mean: float
    low: float
    high: float
    p: float


def paired_difference(values: pd.Series, reference: pd.Series) -> PairedDifference:
    """Compare two series of one value a seed, indexed by seed; a seed that either lacks is left out."""
    differences = (values - reference).dropna().to_numpy(dtype=float)
    count, mean = len(differences), float(np.mean(differences)) if len(differences) else np.nan
    if count < 2:
        return PairedDifference(count, mean, np.nan, np.nan, np.nan)
    low, high = stats.ttest_1samp(differences, 0.0).confidence_interval(CONFIDENCE)
    return PairedDifference(count, mean, float(low), float(high), sign_flip_p(differences))


def sign_flip_p(differences: np.ndarray) -> float:
    """The two-sided p-value of the sign-flip permutation test that ``differences`` [n] have mean 0."""
    test = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    return float(test.pvalue)


def holm(p: pd.Series) -> pd.Series:
    """``p`` after Holm's correction (1979) for as many tests as it holds; missing values stay missing."""
    tested = p.dropna()
    corrected = multipletests(tested, method="holm")[1] if len(tested) else tested
    return pd.Series(corrected, index=tested.index, dtype=float).reindex(p.index)
