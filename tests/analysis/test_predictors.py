"""Readings against gaps: made-up cells in which what goes with the gap is known, and SciPy's rank correlation."""

import numpy as np
import pandas as pd
import pytest
from relora_study.analysis import predictors
from relora_study.analysis.predictors import NAMED, NAMES, at, common_step, error_ratio, predictive
from scipy.stats import spearmanr

GOOD, NULL, BY_STRATUM = NAMES[1], NAMES[5], NAMES[9]
METHODS, STRATA, SEEDS = 14, ("small, 100 steps", "large, 900 steps"), 3


@pytest.fixture(scope="module")
def cells():
    """Gaps that follow one reading within a stratum, not another, and a third between strata and not within."""
    random, rows = np.random.default_rng(3), []
    for method in range(METHODS):
        for height, stratum in enumerate(STRATA):
            for seed in range(SEEDS):
                gap = method / 10 + 5 * height + 0.02 * random.normal()
                readings = dict.fromkeys(NAMES, np.nan) | {
                    GOOD: 3 * method + 0.1 * random.normal() - 100 * height,
                    NULL: random.normal() + method % 2,
                    BY_STRATUM: 10 * height + random.normal(),
                }
                named = (f"{method}-{stratum}-{seed}", f"m{method}", f"m{method}", stratum, seed, gap, 50)
                rows.append(dict(zip(NAMED, named, strict=True)) | readings)
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def found(cells):
    return predictive(cells).set_index("reading")


def test_only_what_goes_with_the_gap_within_a_stratum_is_found(found):
    assert list(found.index) == [GOOD, NULL, BY_STRATUM], "readings that no cell has are left out"
    good = found.loc[GOOD]
    assert good.correlation > 0.98 and good.correlation_low > 0.9 and good.p_holm < 0.001 and good.error_ratio < 0.2
    assert (good.cells, good.methods) == (METHODS * len(STRATA) * SEEDS, METHODS)
    for name in (NULL, BY_STRATUM):
        assert found.p_holm[name] > 0.05 and found.error_ratio[name] > 0.9, name


def test_of_one_stratum_the_correlation_and_its_chance_are_spearmans(cells):
    one = cells[(cells.stratum == STRATA[0]) & (cells.seed == 0)]
    row = predictive(one).set_index("reading").loc[NULL]
    expected = spearmanr(one[NULL], one.gap)
    assert row.correlation == pytest.approx(expected.statistic)
    alone = predictive(one.drop(columns=[GOOD, BY_STRATUM]).assign(**{GOOD: np.nan, BY_STRATUM: np.nan}))
    assert alone.p_holm.item() == pytest.approx(expected.pvalue, abs=0.03), "Holm over one test changes nothing"


def test_a_reading_of_noise_is_called_significant_no_oftener_than_it_may(monkeypatch):
    monkeypatch.setattr(predictors, "RESAMPLES", 999)
    random, false = np.random.default_rng(0), 0
    for _ in range(60):
        base = {"method": [f"m{i}" for i in range(12)] * 2, "stratum": ["a"] * 12 + ["b"] * 12, "seed": 0, "step": 1}
        table = pd.DataFrame(dict.fromkeys(NAMES, np.nan) | base | {"gap": random.normal(size=24)})
        table = table.assign(variant=table.method, cell=table.method + table.stratum)
        false += (predictive(table.assign(**{name: random.normal(size=24) for name in NAMES[:4]})).p_holm < 0.05).any()
    assert false <= 8, "of 60, about 3"


def test_strata_of_two_methods_are_left_out(cells):
    few = cells[(cells.stratum == STRATA[0]) | cells.method.isin(["m0", "m1"])]
    assert (predictive(few).cells == METHODS * SEEDS).all()


def test_the_error_is_that_of_a_method_that_the_fit_did_not_see():
    """By hand: gaps 0, 1, 2 at readings 0, 1, 2. A line through any two meets the third; their mean misses it."""
    means = pd.DataFrame({"stratum": "a", "method": list("xyz"), "reading": [0.0, 1.0, 2.0], "gap": [0.0, 1.0, 2.0]})
    assert error_ratio(means) == pytest.approx(0.0, abs=1e-12)
    against = error_ratio(means.assign(reading=[0.0, 3.0, 0.0]))  # the fits: slope 1/3, 0 and -1/3
    assert against == pytest.approx(np.mean([1.5 + 0.5, 0.0, 1.5 + 0.5]) / np.mean([1.5, 0.0, 1.5]))


def long(step, quantity, metric, value):
    return {"step": step, "component": "wq", "layer": 0, "quantity": quantity, "metric": metric, "value": value}


def test_readings_are_means_over_components_at_the_step_and_sizes_are_logarithms():
    rows = [long(30, "gradients", "condition_number", 10.0), long(30, "gradients", "condition_number", 1000.0)]
    rows += [long(30, "gradients", "effective_rank", 4.0), long(60, "gradients", "effective_rank", 9.0)]
    found = at(pd.DataFrame([*rows, long(30, "gradients", "effective_rank", np.inf)]), 30)
    assert found["gradients.condition_number"] == pytest.approx(2.0)
    assert found["gradients.effective_rank"] == 4.0, "an infinite reading is none"
    assert np.isnan(found["adapters.gradient_share"])


def test_the_step_is_the_first_that_all_have_from_a_quarter_on():
    tables = [[10, 30, 60], [10, 25, 30, 60], [10, 30, 50]]
    read = [pd.DataFrame([long(step, "against_full_rank", "cka", 1.0) for step in steps]) for steps in tables]
    assert common_step(read, 25) == 30 and common_step(read[:2], 31) == 60
