"""Intervals of means (bootstraps, and Student's over seeds), and tests of whether one method answers pairs better."""

import numpy as np
import pandas as pd
from scipy.stats import binomtest, bootstrap, ttest_1samp
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportions_ztest

from ..config.measuring import LEVEL
from .published import BLIMP_PAIRS, published_paradigms
from .published_recipe import STEPS

RESAMPLES = 2000
BAND_RESAMPLES = 400  # for bands of figures: nobody reads a band to three digits


def mean_interval(values: np.ndarray, resamples: int = RESAMPLES) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile bootstrap interval of the mean of ``values`` [..., n] over the last axis, each of shape [...].

    The percentile method (Efron and Tibshirani 1993, chapter 13) keeps the interval within the range of the values, as
    PER and condition numbers need. All rows draw one set of resamples, from seed 0. The interval of a single value, or
    of equal values, has no width.
    """
    low, high = values.min(axis=-1), values.max(axis=-1)
    if values.shape[-1] < 2 or (low == high).all():
        return low, high
    interval = bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        axis=-1,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return np.asarray(interval.low), np.asarray(interval.high)


def t_interval(values: np.ndarray) -> tuple[float, float]:
    """Student's 95 % interval of the mean of ``values`` [n]; missing for fewer than two, or where one is missing."""
    if len(values) < 2 or not np.isfinite(values).all():
        return np.nan, np.nan
    low, high = ttest_1samp(values, 0.0).confidence_interval(1 - LEVEL)
    return float(low), float(high)


def perplexity_interval(texts: pd.DataFrame) -> tuple[float, float]:
    """95 % bootstrap interval, over the texts of each domain, of the macro average of token perplexity.

    ``texts`` has the columns domain, tokens and nats, and one row for each text (evaluate.texts.score).
    A domain with one text enters the average without resampling.
    """
    domains = [domain for _, domain in texts[np.isfinite(texts.nats)].groupby("domain")]
    totals = [(domain.nats.to_numpy(), domain.tokens.to_numpy()) for domain in domains]
    drawn = [pair for pair in totals if len(pair[0]) > 1]
    fixed = [float(np.exp(nats[0] / tokens[0])) for nats, tokens in totals if len(nats) == 1]
    if not drawn:
        alone = float(np.mean(fixed)) if fixed else float("nan")
        return alone, alone

    def macro_average(*rows: np.ndarray, axis: int) -> np.ndarray:
        """The average over domains; ``rows`` holds row numbers [resamples, texts] for each domain."""
        perplexities = [
            np.exp(nats[chosen].sum(axis) / tokens[chosen].sum(axis))
            for (nats, tokens), chosen in zip(drawn, rows, strict=True)
        ]
        return np.asarray((sum(perplexities) + sum(fixed)) / len(totals))

    interval = bootstrap(
        [np.arange(len(nats)) for nats, _ in drawn],
        macro_average,
        n_resamples=RESAMPLES,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


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
