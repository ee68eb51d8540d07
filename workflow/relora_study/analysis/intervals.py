"""Intervals of means: bootstraps, and Student's over seeds; ``evaluate.proportions`` has the interval of a share."""

import numpy as np
import pandas as pd
import scipy

from ..config.measuring import LEVEL

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
    interval = scipy.stats.bootstrap(
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
    low, high = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(1 - LEVEL)
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

    interval = scipy.stats.bootstrap(
        [np.arange(len(nats)) for nats, _ in drawn],
        macro_average,
        n_resamples=RESAMPLES,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)
