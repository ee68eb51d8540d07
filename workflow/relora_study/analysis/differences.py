"""Differences between methods that share a seed's first weights, data order and evaluation items: paired by seed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ..evaluate.proportions import LEVEL
from .intervals import t_interval
from .results import Runs
from .source import Source, measured


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
    """The two-sided p-value of the sign-flip permutation test that ``differences`` [n] have mean 0.

    It is exact for up to 16 differences. For more it draws that many random flips from seed 0.
    """
    flips, draws = 2**16, np.random.default_rng(0)
    test = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=flips, rng=draws)
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


def over_full_rank(source: Source, rows: pd.DataFrame) -> pd.Series:
    """The last ``value`` of each cell in ``rows`` less full rank's of equal size and seed, by method, size and seed.

    A cell that diverged, or whose full rank did or is missing, has no value.
    """
    whole = rows[~rows.cell.isin(list(source.diverged))].sort_values("step")
    last = whole.groupby(["method", "size", "seed"]).value.last()
    full = last[last.index.get_level_values("method") == source.full_rank_method].droplevel("method")
    return (last - full.reindex(last.index.droplevel("method")).to_numpy()).dropna()


def gaps(source: Source) -> pd.DataFrame:
    """The held-out loss of each cell less full rank's of equal size and seed (nats/token), at the last step.

    Columns: size, d_model, method, seed, gap. A cell that diverged, or whose full rank did, has no row.
    """
    over = over_full_rank(source, measured(source, "held_out", "fixed_batch", "loss"))
    table = over.rename("gap").reset_index()
    table = table[table.method != source.full_rank_method]
    widths = {cell.size_name: cell.size.d_model for cell in source.cells.values()}
    table = table.assign(d_model=table["size"].map(widths))
    table = table.sort_values(["d_model", "method", "seed"], key=_order(source), kind="stable")
    return table[["size", "d_model", "method", "seed", "gap"]]


def _order(source: Source) -> Callable[[pd.Series], pd.Series]:
    """The order of rows: methods in the study's, other columns in their own."""
    return lambda column: column.map(source.methods.index) if column.name == "method" else column


def mean_gaps(rows: pd.DataFrame) -> pd.DataFrame:
    """The mean of :func:`gaps` over seeds for each method and width, with Student's 95 % interval."""
    table = []
    for (method, width), group in rows.groupby(["method", "d_model"], sort=False):
        low, high = t_interval(group.gap.to_numpy())
        named = {"method": method, "d_model": width, "seeds": len(group)}
        table.append(named | {"gap": group.gap.mean(), "gap_low": low, "gap_high": high})
    return pd.DataFrame(table)


def trend(source: Source) -> pd.DataFrame:
    """Whether the gap to full rank grows with size: a row a method, by least squares over the means of the sizes.

    ``slope`` is the change of the gap (nats/token) with each doubling of d_model, with Student's 95 % interval of
    sizes - 2 degrees of freedom; ``p`` is the two-sided test that it is 0. Cells of one size share a learning rate
    and a text, so only sizes count as independent. With fewer than three sizes all four are missing: two points always
    lie on a line.
    """
    return fitted_trend(gaps(source))


def fitted_trend(rows: pd.DataFrame) -> pd.DataFrame:
    """:func:`trend`, from the table of :func:`gaps`."""
    table = []
    for method, group in rows.groupby("method", sort=False):
        means = group.groupby("d_model").gap.mean()
        slope = low = high = p = np.nan
        if len(means) > 2:
            fit = stats.linregress(np.log2(means.index), means)
            half = stats.t.ppf(1 - LEVEL / 2, len(means) - 2) * fit.stderr
            slope, low, high, p = fit.slope, fit.slope - half, fit.slope + half, fit.pvalue
        named = {"method": method, "sizes": len(means), "cells": len(group)}
        table.append(named | {"slope": slope, "slope_low": low, "slope_high": high, "p": p})
    return pd.DataFrame(table, columns=["method", "sizes", "cells", "slope", "slope_low", "slope_high", "p"])


def _of_size(values: pd.Series, runs: Runs, named: dict[str, str]) -> Iterator[dict[str, object]]:
    reference = runs.full_rank_method
    for method in runs.methods if reference in values else []:
        if method != reference and method in values:
            found = paired_difference(values[method], values[reference])
            spread = {"seeds": found.seeds, "difference": found.mean, "p": found.p}
            yield named | {"method": method, "difference_low": found.low, "difference_high": found.high} | spread
