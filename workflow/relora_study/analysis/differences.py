"""Differences between methods that share a seed's first weights, data order and evaluation items: paired by seed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from .intervals import t_interval
from .results import Runs
from .source import measured


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
    return PairedDifference(count, mean, *t_interval(differences), sign_flip_p(differences))


def sign_flip_p(differences: np.ndarray) -> float:
    """The two-sided p-value of the sign-flip permutation test that ``differences`` [n] have mean 0."""
    test = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    return float(test.pvalue)


def holm(p: pd.Series) -> pd.Series:
    """``p`` after Holm's correction (1979) for as many tests as it holds; missing values stay missing."""
    tested = p.dropna()
    corrected = multipletests(tested, method="holm")[1] if len(tested) else tested
    return pd.Series(corrected, index=tested.index, dtype=float).reindex(p.index)


MEASURES = {
    "held_out_loss": ("held_out", "fixed_batch", "loss"),
    "perplexity": ("perplexity", "macro_average", "token_perplexity"),
    "accuracy": ("minimal_pairs", "overall", "accuracy"),
}
COLUMNS = ["size", "method", "measure", "seeds", "difference", "difference_low", "difference_high", "p", "p_holm"]


def differences(runs: Runs) -> pd.DataFrame:
    """Each method less full rank at the last step, paired by seed: a row a size, method and measure.

    A cell that diverged is left out. ``p`` is the sign-flip test's, ``p_holm`` after Holm's correction over the methods
    of a size and measure.
    """
    rows: list[dict[str, object]] = []
    for measure, kind in MEASURES.items():
        rows_there = measured(runs, *kind)
        whole = rows_there[~rows_there.cell.isin(list(runs.diverged))]
        last = whole.sort_values("step").groupby(["size", "method", "seed"]).value.last()
        for size in runs.sizes:
            rows += _of_size(last.get(size, last.iloc[:0]), runs, {"size": size, "measure": measure})
    table = pd.DataFrame(rows, columns=COLUMNS)
    table["p_holm"] = table.groupby(["size", "measure"], sort=False).p.transform(holm)
    return table


def _of_size(values: pd.Series, runs: Runs, named: dict[str, str]) -> Iterator[dict[str, object]]:
    reference = runs.full_rank_method
    for method in runs.methods if reference in values else []:
        if method != reference and method in values:
            found = paired_difference(values[method], values[reference])
            spread = {"seeds": found.seeds, "difference": found.mean, "p": found.p}
            yield named | {"method": method, "difference_low": found.low, "difference_high": found.high} | spread
