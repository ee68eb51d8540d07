"""Whether one method answers minimal pairs better than another: the published test, and tests for paired answers."""

import pandas as pd
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportions_ztest

from ..config.measuring import LEVEL
from .intervals import mean_interval
from .published import BLIMP_PAIRS, published_paradigms
from .published_recipe import STEPS


def compare(better: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    """The difference in accuracy of ``better`` and ``other``, two tables of judged pairs (UID, pairID, good, bad).

    ``z``, ``p``: the published one-sided two-proportion z-test that ``better`` is better. The test takes the answers
    for independent. ``mcnemar_p``: the exact two-sided test for paired answers (McNemar 1947).
    ``difference_low``, ``difference_high``: 95 % bootstrap interval over paradigms (Efron and Tibshirani 1993).
    ``paradigms_better``, ``paradigms_worse``: the number of paradigms that McNemar's test calls different at the 5 %
    level after Holm's correction (1979), by the sign of the difference.
    """
    right = pd.DataFrame(
        {"UID": better.UID, "better": better.good > better.bad, "other": (other.good > other.bad).to_numpy()}
    )
    z, p = _two_proportions(right.better.sum(), right.other.sum(), len(right))
    by_paradigm = right.groupby("UID")
    differences = (by_paradigm.better.mean() - by_paradigm.other.mean()).to_numpy()
    low, high = map(float, mean_interval(differences))
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


def chance_p(judged: pd.DataFrame) -> float:
    """The p-value of as many right answers or more under chance, one-sided binomial, to a table of judged pairs."""
    right = int((judged.good > judged.bad).sum())
    return float(binomtest(right, len(judged), alternative="greater").pvalue)


def published_test(size: str) -> dict[str, float]:
    """The published test on the published accuracies of ``size`` at the last step; keys as in :func:`compare`.

    A paired test is not possible: the authors did not release which pairs were right.
    """
    rows = published_paradigms()
    rows = rows[(rows["size"] == size) & (rows.step == STEPS)]
    by_paradigm = rows.pivot(index="paradigm", columns="method", values="accuracy")
    full, relora = by_paradigm.full.mean(), by_paradigm.relora.mean()
    z, p = _two_proportions(round(full * BLIMP_PAIRS), round(relora * BLIMP_PAIRS), BLIMP_PAIRS)
    low, high = map(float, mean_interval((by_paradigm.full - by_paradigm.relora).to_numpy()))
    return {"difference": full - relora, "difference_low": low, "difference_high": high, "z": z, "p": p}


def _two_proportions(better: int, other: int, count: int) -> tuple[float, float]:
    """z and one-sided p of the pooled two-proportion test that ``better`` of ``count`` is more than ``other``."""
    z, p = proportions_ztest([better, other], [count] * 2, alternative="larger")
    return float(z), float(p)


def _mcnemar(right: pd.DataFrame) -> float:
    table = pd.crosstab(right.better, right.other).reindex(index=[False, True], columns=[False, True], fill_value=0)
    return float(mcnemar(table, exact=True).pvalue)
