"""Shares of right answers: Wilson's interval, and the test against chance."""

from typing import TypeVar

import pandas as pd

from ..config.measuring import LEVEL

Counts = TypeVar("Counts", float, pd.Series)


def wilson(right: Counts, count: int) -> tuple[Counts, Counts]:
    """Wilson's 95 % interval of the share ``right / count`` (Wilson 1927)."""
    from statsmodels.stats.proportion import proportion_confint  # figures and jobs without intervals start sooner

    low, high = proportion_confint(right, count, alpha=LEVEL, method="wilson")
    return low, high


def chance_p(right: int, count: int) -> float:
    """The p-value of ``right`` or more right answers to ``count`` questions under chance, one-sided binomial."""
    from scipy.stats import binomtest

    return float(binomtest(right, count, 0.5, alternative="greater").pvalue)
