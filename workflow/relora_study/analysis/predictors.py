"""Do readings of a checkpoint, taken early in a training, go with how far the cell ends above full rank?

Rows are cells with a full-rank partner of equal size, seed and steps. A stratum holds the cells of one study, size and
number of steps, read at one step: the first, at a quarter of the training or later, at which all of them have a
checkpoint. Within a stratum, a method's seeds are averaged, and values become ranks about their middle, so that neither
the size nor the length of a training can make a correlation. Strata of fewer than three methods are left out.
"""

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd

from ..config import Cell, read_section
from ..config.cells import base_method
from ..config.measuring import LEVEL
from ..config.settings import Partners
from ..storage.files import read_csv
from .effects import holm
from .losses import Losses

EARLY = 0.25  # of the training
FEWEST = 3  # methods of a stratum
RESAMPLES = 10_000
# quantity and metric of `dynamics.csv` or `against_full_rank.csv`, each a mean over components and layers
PREDICTORS = [
    ("against_full_rank", "loss_difference"),  # the control: what the gap itself says at that step
    ("against_full_rank", "cka"),
    ("against_full_rank", "cosine"),
    ("against_full_rank", "distance"),
    ("cumulative_update", "effective_rank"),
    ("cumulative_update", "stable_rank"),
    ("cumulative_update", "spectral_norm"),
    ("cumulative_update", "frobenius_norm"),
    ("cumulative_update", "intruders"),
    ("effective_weights", "effective_rank"),
    ("effective_weights", "stable_rank"),
    ("effective_weights", "spectral_norm"),
    ("effective_weights", "condition_number"),
    ("gradients", "effective_rank"),
    ("gradients", "stable_rank"),
    ("gradients", "condition_number"),
    ("gradients", "frobenius_norm"),
    ("hidden_states", "effective_rank"),
    ("hidden_states", "mean_cosine"),
    ("head", "effective_rank"),
    ("head", "spectral_norm"),
    ("adapters", "gradient_share"),
    ("adapters", "cosine_with_adam"),
    ("adapters", "norm_over_adam"),
    ("adapters", "cosine_with_descent"),
    ("updates_exact", "effective_rank"),
    ("updates_exact", "condition_number"),
]
LOGARITHMIC = ("condition_number", "frobenius_norm", "spectral_norm", "norm_over_adam")
NAMED = ("cell", "method", "variant", "stratum", "seed", "gap", "step")
NAMES = [f"{quantity}.{metric}" for quantity, metric in PREDICTORS]


def early_readings(results: Path) -> pd.DataFrame:
    """A row a cell of ``results``: cell, method, variant, stratum, seed, gap (nats/token), step, and each predictor.

    A cell that diverged, or whose partner did, is left out, because it has no gap.
    """
    pairs = read_section(Partners, results / "settings" / "partners.yaml").pairs
    losses = Losses.read(results / "cells", dict.fromkeys([*pairs, *pairs.values()]))
    gaps = {name: losses.of(name) - losses.of(partner) for name, partner in pairs.items()}
    cells = [
        read_section(Cell, results / "cells" / name / "config.yaml") for name, gap in gaps.items() if np.isfinite(gap)
    ]
    tables = {cell.name: _readings(results / "cells" / cell.name) for cell in cells}
    rows = []
    for stratum, group in groupby(sorted(cells, key=_stratum), _stratum):
        alike = list(group)
        step = common_step([tables[cell.name] for cell in alike], EARLY * alike[0].train.steps)
        for cell in alike:
            named = (cell.name, base_method(cell), cell.method_name, stratum, cell.seed, gaps[cell.name], step)
            rows.append(dict(zip(NAMED, named, strict=True)) | at(tables[cell.name], step))
    return pd.DataFrame(rows)


def _stratum(cell: Cell) -> str:
    return f"{cell.size_name}, {cell.train.steps} steps"


def _readings(folder: Path) -> pd.DataFrame:
    return pd.concat([read_csv(folder / name) for name in ("dynamics.csv", "against_full_rank.csv")])


def common_step(tables: Iterable[pd.DataFrame], earliest: float) -> int:
    """The first step from ``earliest`` on that every table has readings against full rank of."""
    steps = [set(table.step[table.quantity == PREDICTORS[0][0]]) for table in tables]
    return int(min(step for step in set.intersection(*steps) if step >= earliest))


def at(readings: pd.DataFrame, step: int) -> dict[str, float]:
    """Each predictor at ``step``: a mean over components and layers, of logarithms where sizes span decades."""
    here = readings[readings.step == step].assign(name=lambda rows: rows.quantity + "." + rows.metric)
    values = here.value.where(~here.metric.isin(LOGARITHMIC), np.log10(here.value.where(here.value > 0)))
    means = values.replace([np.inf, -np.inf], np.nan).groupby(here.name).mean()
    return {name: float(means.get(name, np.nan)) for name in NAMES}


def predictive(cells: pd.DataFrame) -> pd.DataFrame:
    """A row a predictor: how it goes with the gap, over the methods of ``cells`` (:func:`early_readings`).

    Columns: reading, cells, methods, correlation of ranks with its 95 % interval (a bootstrap of whole methods), p_holm
    (gaps permuted within strata; Holm over the table), and error_ratio: the mean error of gaps predicted for a method
    that the fit did not see, over the error of that stratum's mean gap. Below 1, the reading helps.
    """
    rows, chances = [], []
    for name in NAMES:
        known = cells.dropna(subset=[name])
        means = known.groupby(["stratum", "method", "variant"], as_index=False)[[name, "gap"]].mean()
        means = means[means.groupby("stratum").method.transform("nunique") >= FEWEST]
        if means.empty:
            continue
        ranks = means.groupby("stratum")[[name, "gap"]].transform(_centred_ranks)
        low, high = _interval(ranks.to_numpy(), means.method.to_numpy())
        counted = known.stratum.isin(means.stratum).sum()
        rows.append(
            {
                "reading": name,
                "cells": int(counted),
                "methods": means.method.nunique(),
                "correlation": _correlation(ranks.to_numpy()),
                "correlation_low": low,
                "correlation_high": high,
                "error_ratio": error_ratio(means.rename(columns={name: "reading"})),
            }
        )
        chances.append(_chance(ranks.to_numpy(), means.stratum.to_numpy()))
    return pd.DataFrame(rows).assign(p_holm=holm(chances))


def _centred_ranks(values: pd.Series) -> pd.Series:
    """The ranks of ``values`` about their middle, over their number: between -1/2 and 1/2, equal for equal values."""
    return (values.rank() - (len(values) + 1) / 2) / len(values)


def _correlation(ranks: np.ndarray) -> float:
    """The correlation of two columns of centred ranks [n, 2]; NaN where one is constant."""
    moments = ranks.T @ ranks
    with np.errstate(invalid="ignore"):
        return float(moments[0, 1] / np.sqrt(moments[0, 0] * moments[1, 1]))


def _interval(ranks: np.ndarray, methods: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of the correlation, over resamples of whole methods with all their rows."""
    products = np.stack([ranks[:, 0] * ranks[:, 1], ranks[:, 0] ** 2, ranks[:, 1] ** 2], axis=1)
    sums = pd.DataFrame(products).groupby(methods).sum().to_numpy()
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    between, *within = sums[drawn].sum(1).T
    with np.errstate(invalid="ignore"):
        correlations = between / np.sqrt(within[0] * within[1])
    low, high = np.nanquantile(correlations, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def _chance(ranks: np.ndarray, strata: np.ndarray) -> float:
    """The share of permutations of gaps within strata whose correlation is as far from 0, two-sided."""
    rng, totals = np.random.default_rng(0), np.zeros(RESAMPLES)
    for stratum in dict.fromkeys(strata):
        ours = ranks[strata == stratum]
        totals += rng.permuted(np.tile(ours[:, 1], (RESAMPLES, 1)), axis=1) @ ours[:, 0]
    found = abs(ranks[:, 0] @ ranks[:, 1])
    return float((1 + (abs(totals) >= found * (1 - 1e-9)).sum()) / (1 + RESAMPLES))


def error_ratio(means: pd.DataFrame) -> float:
    """The mean error of gaps predicted for methods left out in turn, over that of the mean gap of the stratum.

    ``means`` has stratum, method, reading and gap. One slope, of gap on reading about the means of strata, is fitted to
    the other methods.
    """
    errors, plain = [], []
    for method in means.method.unique():
        others = means[means.method != method]
        centres = others.groupby("stratum")[["reading", "gap"]].mean()
        about = others[["reading", "gap"]] - centres.loc[others.stratum].to_numpy()
        spread = (about.reading**2).sum()
        slope = (about.reading * about.gap).sum() / spread if spread else 0.0
        left_out = means[(means.method == method) & means.stratum.isin(centres.index)]
        expected = centres.loc[left_out.stratum]
        missed = left_out.gap.to_numpy() - expected.gap.to_numpy()
        plain += list(abs(missed))
        errors += list(abs(missed - slope * (left_out.reading.to_numpy() - expected.reading.to_numpy())))
    return float(np.mean(errors) / np.mean(plain))
