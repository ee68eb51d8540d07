"""Differences paired by seed, against closed forms and enumeration."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from relora_study.analysis.differences import gaps, holm, paired_difference, sign_flip_p, trend
from scipy.stats import norm, t
from statsmodels.api import OLS, add_constant

VALUES = pd.Series([5.1, 5.4, 5.2, 5.0, 5.6], index=[42, 43, 44, 45, 46])
REFERENCE = pd.Series([5.0, 5.2, 5.05, 5.02, 5.3], index=[42, 43, 44, 45, 46])


def test_mean_and_interval_are_the_closed_form():
    found, differences = paired_difference(VALUES, REFERENCE), np.array([0.1, 0.2, 0.15, -0.02, 0.3])
    half = t.ppf(0.975, 4) * differences.std(ddof=1) / math.sqrt(5)
    assert (found.seeds, found.mean) == (5, pytest.approx(differences.mean()))
    assert (found.low, found.high) == (pytest.approx(found.mean - half), pytest.approx(found.mean + half))


def test_the_sign_flip_test_is_the_enumeration():
    differences = np.array([0.1, 0.2, 0.15, -0.02, 0.3])
    means = [abs(np.mean(differences * signs)) for signs in itertools.product([1, -1], repeat=5)]
    assert sign_flip_p(differences) == pytest.approx(np.mean(np.array(means) >= abs(differences.mean()) - 1e-12))


def test_five_seeds_that_agree_reach_two_thirty_seconds_and_no_less():
    assert sign_flip_p(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == pytest.approx(2 / 2**5)


def test_fifty_seeds_are_tested_on_random_flips_in_a_moment():
    """The normal approximation of the sign-flip distribution is the oracle; 2^50 flips would never end."""
    differences = np.random.default_rng(7).normal(0.3, 1.0, 50)
    deviation = math.sqrt((differences**2).sum()) / 50
    assert sign_flip_p(differences) == pytest.approx(2 * norm.sf(abs(differences.mean()) / deviation), rel=0.1)
    assert sign_flip_p(differences) == sign_flip_p(differences)


def test_seeds_are_paired_by_name_and_not_by_place():
    assert paired_difference(VALUES[::-1], REFERENCE) == paired_difference(VALUES, REFERENCE)
    assert paired_difference(VALUES.drop(44), REFERENCE).seeds == 4


def test_one_seed_has_no_interval():
    found = paired_difference(VALUES[:1], REFERENCE)
    assert found.seeds == 1 and found.mean == pytest.approx(0.1) and math.isnan(found.low) and math.isnan(found.p)


def test_holm_multiplies_the_smallest_by_all_and_never_falls():
    """Holm 1979: sorted p-values times the number of tests not yet rejected, made monotone."""
    corrected = holm(pd.Series({"a": 0.01, "b": 0.04, "c": 0.03, "d": np.nan}))
    assert corrected[["a", "b", "c"]].tolist() == pytest.approx([0.03, 0.06, 0.06]) and math.isnan(corrected["d"])


GAPS = {24: [0.10, 0.12], 48: [0.22, 0.20], 96: [0.28, 0.33], 192: [0.41, 0.40]}


def of_widths(losses: dict[int, list[float]]) -> SimpleNamespace:
    """A source of one method beside full rank, whose loss is 5, with ``losses`` over it by width."""
    rows, cells = [], {}
    for width, over in losses.items():
        cells[f"w{width}"] = SimpleNamespace(size_name=f"w{width}", size=SimpleNamespace(d_model=width))
        for seed, gap in enumerate(over):
            named = {"size": f"w{width}", "seed": seed, "step": 10, "suite": "held_out", "metric": "loss"}
            rows += [named | {"method": "full", "value": 5.0, "cell": f"w{width}-full-s{seed}"}]
            rows += [named | {"method": "relora", "value": 5.0 + gap, "cell": f"w{width}-relora-s{seed}"}]
    table = pd.DataFrame(rows).assign(item="fixed_batch")
    return SimpleNamespace(
        table=lambda file: table, cells=cells, diverged={}, full_rank_method="full", methods=["full", "relora"]
    )


def test_the_trend_is_the_line_through_the_means_of_sizes_by_doublings():
    (row,) = trend(of_widths(GAPS)).to_dict("records")
    fit = OLS([np.mean(gaps) for gaps in GAPS.values()], add_constant(np.log2(list(GAPS)))).fit()
    assert fit.df_resid == 2, "cells of one size share a rate and a text"
    assert (row["sizes"], row["cells"], row["slope"]) == (4, 8, pytest.approx(fit.params[1]))
    assert [row["slope_low"], row["slope_high"]] == pytest.approx(list(fit.conf_int(0.05)[1]))
    assert row["p"] == pytest.approx(fit.pvalues[1])


def test_more_seeds_of_a_size_are_no_more_sizes():
    (few,), (many,) = (
        trend(of_widths(each)).to_dict("records") for each in (GAPS, {w: g * 5 for w, g in GAPS.items()})
    )
    assert many["cells"] == 5 * few["cells"] and many["p"] == pytest.approx(few["p"])


def test_two_sizes_show_no_trend_and_a_cell_without_full_rank_no_gap():
    source = of_widths({24: [0.1], 48: [0.2]})
    assert trend(source).slope.isna().all() and gaps(source).gap.tolist() == pytest.approx([0.1, 0.2])
    source.diverged = {"w24-full-s0": 5}
    assert gaps(source)["size"].tolist() == ["w48"]
