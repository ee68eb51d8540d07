"""Shares of right answers: Wilson's interval, and the test against chance."""

from typing import TypeVar

import pandas as pd
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint

from ..config.measuring import LEVEL

Counts = TypeVar("Counts", float, pd.Series)


def wilson(right: Counts, count: int) -> tuple[Counts, Counts]:
    """Wilson's 95 % interval of the share ``right / count`` (Wilson 1927)."""
    low, high = proportion_confint(right, count, alpha=LEVEL, method="wilson")
    return low, high


def chance_p(right: int, count: int) -> float:
    """The p-value of ``right`` or more right answers to ``count`` questions under chance, one-sided binomial."""
    return float(binomtest(right, count, 0.5, alternative="greater").pvalue)
