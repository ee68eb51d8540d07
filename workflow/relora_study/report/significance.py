"""Is one method better than another on the same minimal pairs? The published test, and the tests for paired answers."""

import numpy as np
import pandas as pd
from scipy.stats import binomtest, bootstrap
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportions_ztest

LEVEL = 0.05
RESAMPLES = 2000


def compare(better: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    """How the accuracy of ``better`` differs from that of ``other``; both are judged pairs (UID, pairID, good, bad).

    ``z``, ``p``: the published one-sided two-proportion z-test that ``better`` is better, which takes the answers for
    independent. ``mcnemar_p``: the exact two-sided test for answers to the same questions (McNemar 1947).
    ``difference_low``, ``difference_high``: 95 % bootstrap interval over paradigms (Efron and Tibshirani 1993).
    ``paradigms_better``, ``paradigms_worse``: paradigms whose McNemar test passes 5 % after Holm's correction (1979).
    """
    right = pd.DataFrame(
        {"UID": better.UID, "better": better.good > better.bad, "other": (other.good > other.bad).to_numpy()}
    )
    counts = [right.better.sum(), right.other.sum()]
    z, p = proportions_ztest(counts, [len(right)] * 2, alternative="larger")
    by_paradigm = right.groupby("UID")
    differences = (by_paradigm.better.mean() - by_paradigm.other.mean()).to_numpy()
    low, high = _interval_over_paradigms(differences)
    significant = multipletests([_mcnemar(group) for _, group in by_paradigm], alpha=LEVEL, method="holm")[0]
    return {
        "difference": right.better.mean() - right.other.mean(),
        "difference_low": low,
        "difference_high": high,
        "z": z,
        "p": p,
        "mcnemar_p": _mcnemar(right),
        "paradigms_better": int((significant & (differences > 0)).sum()),
        "paradigms_worse": int((significant & (differences < 0)).sum()),
    }


def chance_p(right: int, count: int) -> float:
    """The p-value of ``right`` of ``count`` right answers under chance, two-sided binomial."""
    return float(binomtest(right, count, 0.5).pvalue)


def _mcnemar(right: pd.DataFrame) -> float:
    table = pd.crosstab(right.better, right.other).reindex(index=[False, True], columns=[False, True], fill_value=0)
    return float(mcnemar(table, exact=True).pvalue)


def _interval_over_paradigms(differences: np.ndarray) -> tuple[float, float]:
    if np.ptp(differences) == 0:
        return float(differences[0]), float(differences[0])
    found = bootstrap((differences,), np.mean, n_resamples=RESAMPLES, rng=np.random.default_rng(0), method="percentile")
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
