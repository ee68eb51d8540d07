"""Intervals of confidence, in one place: Wilson's for shares, Student's for means over seeds, bootstraps elsewhere."""

import numpy as np
import pandas as pd
from scipy.stats import bootstrap, ttest_1samp
from statsmodels.stats.proportion import proportion_confint

LEVEL = 0.05
RESAMPLES = 2000
BAND_RESAMPLES = 400  # for the bands of figures, which nobody reads to three digits


def wilson(right: pd.Series, count: int) -> tuple[pd.Series, pd.Series]:
    """Wilson's 95 % interval of the share that ``right`` is of ``count`` (Wilson 1927)."""
    low, high = proportion_confint(right, count, alpha=LEVEL, method="wilson")
    return low, high


def mean_interval(values: np.ndarray, resamples: int = RESAMPLES) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile bootstrap interval of the mean of ``values`` [..., n] over the last axis, each of shape [...].

    Percentiles stay within the values, as PER and condition numbers must. Every row draws the same resamples, from
    seed 0 (Efron and Tibshirani 1993, chapter 13). One value alone, or equal values, are their own interval.
    """
    low, high = values.min(axis=-1), values.max(axis=-1)
    if values.shape[-1] < 2 or (low == high).all():
        return low, high
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        axis=-1,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return np.asarray(found.low), np.asarray(found.high)


def t_interval(values: np.ndarray) -> tuple[float, float]:
    """Student's 95 % interval of the mean of ``values`` [n]; missing for fewer than two, or where one is missing."""
    if len(values) < 2 or not np.isfinite(values).all():
        return np.nan, np.nan
    low, high = ttest_1samp(values, 0.0).confidence_interval(1 - LEVEL)
    return float(low), float(high)


def perplexity_interval(texts: pd.DataFrame) -> tuple[float, float]:
    """95 % bootstrap interval, over the texts of each domain, of the macro average of token perplexity.

    ``texts`` has domain, tokens and nats, a row a text, as evaluate.perplexity.score_texts writes it.
    """
    domains = [domain for _, domain in texts[np.isfinite(texts.nats)].groupby("domain")]
    totals = [(domain.nats.to_numpy(), domain.tokens.to_numpy()) for domain in domains]
    drawn = [pair for pair in totals if len(pair[0]) > 1]
    fixed = [float(np.exp(nats[0] / tokens[0])) for nats, tokens in totals if len(nats) == 1]
    if not drawn:
        alone = float(np.mean(fixed)) if fixed else float("nan")
        return alone, alone

    def macro_average(*rows: np.ndarray, axis: int) -> np.ndarray:
        """The average over domains, each of whose resamples is an array of row numbers [resamples, texts]."""
        perplexities = [
            np.exp(nats[chosen].sum(axis) / tokens[chosen].sum(axis))
            for (nats, tokens), chosen in zip(drawn, rows, strict=True)
        ]
        return np.asarray((sum(perplexities) + sum(fixed)) / len(totals))

    found = bootstrap(
        [np.arange(len(nats)) for nats, _ in drawn],
        macro_average,
        n_resamples=RESAMPLES,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)
