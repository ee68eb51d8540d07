"""Differences between methods that share a seed's first weights, data order and evaluation items: paired by seed."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import scipy

from ..config import Cell
from ..config.measuring import LEVEL
from .effects import Effect, verdicts
from .intervals import t_interval
from .results import Runs
from .source import Source, measured

LOSS = "held_out_loss"
COLUMNS = ["size", "method", "measure", "seeds", "diverged", "difference", "difference_low", "difference_high"]
COLUMNS += ["chance", "p_holm", "verdict"]


def differences(runs: Runs) -> pd.DataFrame:
    """Each method less full rank at the last step, paired by seed: a row a size, method and measure.

    The difference in held-out loss is paired by document, too, and ``chance`` names what its interval holds
    (:mod:`.effects`). Its ``verdict`` compares it with the report's margin, and other verdicts with 0. ``p_holm`` is
    corrected over the whole table. Of ``seeds`` cells, ``diverged`` have no value and are left out.
    """
    rows: list[dict[str, object]] = []
    effects: list[Effect] = []
    for measure in (LOSS, *runs.measures):
        for size, method, pairs in _against_full_rank(runs):
            effects.append(_difference(runs, measure, pairs))
            named = {"size": size, "method": method, "measure": measure, "seeds": len(pairs)}
            rows.append(named | {"diverged": len(pairs) - effects[-1].seeds} | in_columns("difference", effects[-1]))
    margins = [runs.margin if row["measure"] == LOSS else 0.0 for row in rows]
    judged = verdicts(effects, margins)
    for row, effect, (verdict, p) in zip(rows, effects, judged, strict=True):
        row |= {"chance": effect.chance, "p_holm": p, "verdict": verdict}
    return pd.DataFrame(rows, columns=COLUMNS)


def in_columns(name: str, effect: Effect) -> dict[str, float]:
    """``effect`` as the columns ``name``, and the ends of its interval."""
    low, high = effect.interval
    return {name: effect.mean, f"{name}_low": low, f"{name}_high": high}


def gap_effects(runs: Runs) -> dict[tuple[str, str], Effect]:
    """The held-out loss of each size and method but full rank less full rank's, paired by seed and document."""
    return {(size, method): _difference(runs, LOSS, pairs) for size, method, pairs in _against_full_rank(runs)}


def _against_full_rank(runs: Runs) -> Iterator[tuple[str, str, list[tuple[Cell, Cell]]]]:
    """Each size and method but full rank, with its cells and full rank's of equal seed."""
    for (size, method), cells in runs.by_size_and_method.items():
        pairs = [(cell, full) for cell in cells if (full := runs.reference_of(cell))]
        if pairs:
            yield size, method, pairs


def _difference(runs: Runs, measure: str, pairs: list[tuple[Cell, Cell]]) -> Effect:
    if measure == LOSS:
        return runs.losses.difference((ours.name, full.name) for ours, full in pairs)
    rows = measured(runs, *runs.measures[measure])
    last = rows[~rows.cell.isin(list(runs.diverged))].sort_values("step").groupby("cell").value.last()
    values = [last.get(ours.name, np.nan) - last.get(full.name, np.nan) for ours, full in pairs]
    return Effect.over_seeds([value for value in values if np.isfinite(value)])


def over_full_rank(source: Source, rows: pd.DataFrame) -> pd.Series:
    """The last ``value`` of each cell in ``rows`` less full rank's of equal size and seed, by method, size and seed.

    A cell that diverged, or whose full rank did or is missing, has no value.
    """
    whole = rows[~rows.cell.isin(list(source.diverged))].sort_values("step")
    last = whole.groupby(["method", "size", "seed"]).value.last()
    full = last[last.index.get_level_values("method") == source.full_rank_method].droplevel("method")
    return (last - full.reindex(last.index.droplevel("method")).to_numpy()).dropna()


def gaps(runs: Runs) -> pd.DataFrame:
    """The held-out loss of each cell less full rank's of equal size and seed (nats/token), at the last step.

    Columns: size, d_model, method, seed, gap with its interval over documents. A cell that diverged, or whose full rank
    did, has no row.
    """
    rows = []
    for size, method, pairs in _against_full_rank(runs):
        for ours, full in pairs:
            named = {"size": size, "d_model": ours.size.d_model, "method": method, "seed": ours.seed}
            rows.append(named | in_columns("gap", runs.losses.difference([(ours.name, full.name)])))
    table = pd.DataFrame(rows, columns=["size", "d_model", "method", "seed", "gap", "gap_low", "gap_high"])
    table = table.dropna(subset="gap")
    return table.sort_values(["d_model", "method", "seed"], key=_order(runs), kind="stable")


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


def trend(source: Runs) -> pd.DataFrame:
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
            fit = scipy.stats.linregress(np.log2(means.index), means)
            half = scipy.stats.t.ppf(1 - LEVEL / 2, len(means) - 2) * fit.stderr
            slope, low, high, p = fit.slope, fit.slope - half, fit.slope + half, fit.pvalue
        named = {"method": method, "sizes": len(means), "cells": len(group)}
        table.append(named | {"slope": slope, "slope_low": low, "slope_high": high, "p": p})
    return pd.DataFrame(table, columns=["method", "sizes", "cells", "slope", "slope_low", "slope_high", "p"])
