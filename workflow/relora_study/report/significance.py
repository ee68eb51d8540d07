"""Is one method better than another on the same minimal pairs? The published test, and the tests for paired answers."""

import numpy as np
import pandas as pd
from scipy.stats import binomtest, bootstrap
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint, proportions_ztest

from .published import BLIMP_PAIRS, released_paradigms
from .shapes import STEPS

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
    z, p = _two_proportions(right.better.sum(), right.other.sum(), len(right))
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


def published_test(size: str) -> dict[str, float]:
    """The published test on the released accuracies of ``size`` at the last step, like :func:`compare`.

    Which pairs were right was not released, so there is no paired test.
    """
    rows = released_paradigms()
    rows = rows[(rows["size"] == size) & (rows.step == STEPS)]
    by_paradigm = rows.pivot(index="paradigm", columns="method", values="accuracy")
    full, relora = by_paradigm.full.mean(), by_paradigm.relora.mean()
    z, p = _two_proportions(round(full * BLIMP_PAIRS), round(relora * BLIMP_PAIRS), BLIMP_PAIRS)
    low, high = _interval_over_paradigms((by_paradigm.full - by_paradigm.relora).to_numpy())
    return {"difference": full - relora, "difference_low": low, "difference_high": high, "z": z, "p": p}


def accuracy_interval(right: pd.Series, count: int) -> tuple[pd.Series, pd.Series]:
    """Wilson's 95 % interval of shares ``right`` of ``count`` (Wilson 1927)."""
    low, high = proportion_confint(right, count, alpha=LEVEL, method="wilson")
    return low, high


def perplexity_interval(texts: pd.DataFrame) -> tuple[float, float]:
    """95 % bootstrap interval, over the texts of each domain, of the macro average of token perplexity.

    ``texts`` has domain, tokens and nats, a row a text, as evaluate.perplexity.score_texts writes it.
    """
    random, means = np.random.default_rng(0), []
    for _, own in texts[np.isfinite(texts.nats)].groupby("domain"):
        drawn = random.integers(len(own), size=(RESAMPLES, len(own)))
        nats, tokens = own.nats.to_numpy()[drawn].sum(1), own.tokens.to_numpy()[drawn].sum(1)
        means.append(np.exp(nats / tokens))
    low, high = np.percentile(np.mean(means, axis=0), [2.5, 97.5])
    return float(low), float(high)


def _two_proportions(better: int, other: int, count: int) -> tuple[float, float]:
    """z and one-sided p of the pooled two-proportion test that ``better`` of ``count`` is more than ``other``."""
    z, p = proportions_ztest([better, other], [count] * 2, alternative="larger")
    return float(z), float(p)


def chance_p(right: int, count: int) -> float:
    """The p-value of ``right`` or more of ``count`` right answers under chance, one-sided binomial."""
    return float(binomtest(right, count, 0.5, alternative="greater").pvalue)


def _mcnemar(right: pd.DataFrame) -> float:
    table = pd.crosstab(right.better, right.other).reindex(index=[False, True], columns=[False, True], fill_value=0)
    return float(mcnemar(table, exact=True).pvalue)


def _interval_over_paradigms(differences: np.ndarray) -> tuple[float, float]:
    if np.ptp(differences) == 0:
        return float(differences[0]), float(differences[0])
    found = bootstrap((differences,), np.mean, n_resamples=RESAMPLES, rng=np.random.default_rng(0), method="percentile")
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
