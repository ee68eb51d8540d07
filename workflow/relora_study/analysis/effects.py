"""A mean over seeds and documents with both sources of chance, and what it says against a margin.

Seeds draw first weights, the order of the data and dropout; documents are the text that happened to be held out. Cells
of all seeds are scored on one set of documents, so a mean over both has two errors that no single resampling covers. We
add the variance of the means of seeds to the variance over documents (two-way clustered variance without the
subtraction of Cameron, Gelbach and Miller 2011, so that the variance errs on the wide side), and take Student's t with
the degrees of freedom of Welch and Satterthwaite. The pigeonhole bootstrap of Owen and Eckles (2012) resamples both,
too, but with three seeds it covers about four of five true means instead of nineteen of twenty
(tests/analysis/test_effects.py measures both).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import scipy

from ..config.measuring import LEVEL

HIGHER, LOWER, EQUAL, UNDECIDED = "higher", "lower", "equal within the margin", "undecided"
ONE_SEED = ", one seed"  # added to a verdict that no second seed has tried

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Effect:
    """A mean of ``seeds`` seeds over ``documents`` documents, its standard error and the error's degrees of freedom.

    A measure without documents has one. ``error`` and ``df`` are NaN where one seed read one document.
    """

    mean: float
    error: float
    df: float
    seeds: int
    documents: int = 1

    @classmethod
    def of(cls, nats: npt.ArrayLike, tokens: npt.ArrayLike) -> Self:
        """The mean loss a token of ``nats`` [seeds, documents], summed over ``tokens`` [documents] each.

        For a difference of two methods, ``nats`` is the difference of theirs, so both chances are paired.
        """
        values, weights = np.atleast_2d(np.asarray(nats, float)), np.asarray(tokens, float)
        seeds, documents = values.shape
        if not seeds:
            return cls(np.nan, np.nan, np.nan, 0, documents)
        by_seed = values.sum(axis=1) / weights.sum()
        mean = float(by_seed.mean())
        parts = []
        if seeds > 1:
            parts.append((float(by_seed.var(ddof=1)) / seeds, seeds - 1))
        if documents > 1:  # of a ratio: the linearised error of each document
            off = values.mean(axis=0) - mean * weights
            parts.append((documents / (documents - 1) * float((off**2).sum()) / weights.sum() ** 2, documents - 1))
        return cls(mean, *_satterthwaite(parts), seeds, documents)

    @classmethod
    def over_seeds(cls, values: npt.ArrayLike) -> Self:
        """The mean of one value a seed: the error and interval are Student's."""
        return cls.of(np.reshape(np.asarray(values, float), (-1, 1)), [1.0])

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean."""
        half = scipy.stats.t.ppf(1 - LEVEL / 2, self.df) * self.error
        return self.mean - half, self.mean + half

    @property
    def p(self) -> float:
        """The two-sided p-value that the mean is 0."""
        return (
            float(2 * scipy.stats.t.sf(abs(self.mean) / self.error, self.df)) if self.error else float(self.mean == 0)
        )

    @property
    def chance(self) -> str:
        """The sources of chance that the interval holds, in words."""
        if self.seeds < 2:
            return "documents, one seed" if self.documents > 1 else ""
        return "seeds and documents" if self.documents > 1 else "seeds"

    def sides(self, margin: float) -> dict[str, float]:
        """The p-value of each outcome: by Student's t, at level 2.5 % each, as a 95 % interval against ±``margin`` is.

        Higher and lower lie beyond the margin; equal is the test of both sides within it (Schuirmann 1987).
        """
        if not self.error:
            sure = HIGHER if self.mean > margin else LOWER if self.mean < -margin else EQUAL
            return {name: float(name != sure) for name in (HIGHER, LOWER, EQUAL)}
        above, below = ((self.mean + side * margin) / self.error for side in (-1, 1))
        higher, lower = float(scipy.stats.t.sf(above, self.df)), float(scipy.stats.t.cdf(below, self.df))
        equal = max(float(scipy.stats.t.cdf(above, self.df)), float(scipy.stats.t.sf(below, self.df)))
        return {name: min(1.0, 2 * p) for name, p in ((HIGHER, higher), (LOWER, lower), (EQUAL, equal))}


def _satterthwaite(parts: list[tuple[float, int]]) -> tuple[float, float]:
    """The root of the sum of variances, each with its degrees of freedom, and the degrees of freedom of the sum."""
    total = sum(variance for variance, _ in parts)
    if not parts:
        return np.nan, np.nan
    if not total:
        return 0.0, float(sum(df for _, df in parts))
    return float(np.sqrt(total)), float(total**2 / sum(variance**2 / df for variance, df in parts))


def verdicts(effects: Sequence[Effect], margin: float | Sequence[float]) -> list[tuple[str, float]]:
    """The verdict on each effect of a table, and its p-value after Holm's correction (1979) over the whole table.

    *Higher* and *lower* are beyond ``margin``, one for all or one for each, and *equal within the margin* is between.
    What an interval, widened by the correction, does not decide is *undecided*. A verdict from one seed says so, and an
    effect without an error has none.
    """
    margins = np.broadcast_to(margin, len(effects))
    sides = [effect.sides(float(within)) for effect, within in zip(effects, margins, strict=True)]
    likeliest = [min(found.items(), key=lambda side: side[1]) for found in sides]
    corrected = holm(
        [p if np.isfinite(effect.df) else np.nan for effect, (_, p) in zip(effects, likeliest, strict=True)]
    )
    return [
        (_worded(effect, name, float(p)), float(p))
        for effect, (name, _), p in zip(effects, likeliest, corrected, strict=True)
    ]


def _worded(effect: Effect, name: str, p: float) -> str:
    if np.isnan(p):
        return ""
    return (name if p < LEVEL else UNDECIDED) + ONE_SEED * (effect.seeds < 2)


def holm(p: npt.ArrayLike) -> Numbers:
    """``p`` after Holm's correction (1979) for as many tests as it holds; missing values stay missing."""
    corrected = np.array(p, dtype=float)
    tested = np.isfinite(corrected)
    if tested.any():
        from statsmodels.stats.multitest import multipletests  # longer than the rest of a figure

        corrected[tested] = multipletests(corrected[tested], method="holm")[1]
    return corrected
