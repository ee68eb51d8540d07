"""Tests of significance, against their formulas and the published p-values."""

import numpy as np
import pandas as pd
import pytest
from relora_study.analysis.intervals import compare, published_test
from relora_study.report.tables import TABLES
from scipy import stats


def test_the_published_test_is_the_textbook_formula(unchanged):
    row = TABLES["significance"](unchanged).iloc[0]
    pooled = (80 + 50) / 200
    z = (0.8 - 0.5) / np.sqrt(pooled * (1 - pooled) * 2 / 100)
    assert (row.cell, row.against) == ("tiny-relora-s42", "tiny-full-s42")
    assert row.z == pytest.approx(z) and row.p == pytest.approx(stats.norm.sf(z))
    assert row.mcnemar_p == pytest.approx(2 * 0.5**30), "30 pairs differ, all in one direction"
    assert row.difference == pytest.approx(0.3) == row.difference_low == row.difference_high
    assert row.chance_p == pytest.approx(stats.binom.sf(49, 100, 0.5)), "50 of 100 are right, or more"


def test_holm_counts_only_paradigms_that_survive_it():
    uid = [name for name in "abc" for _ in range(40)]
    other = pd.DataFrame({"UID": uid, "good": -1.0, "bad": 0.0})
    better = other.assign(good=[1.0] * 40 + [1.0] * 6 + [-1.0] * 34 + [-1.0] * 40)
    found = compare(better, other)
    assert 2 * 0.5**6 < 0.05 < 2 * 2 * 0.5**6, "b passes alone, and not beside a and c"
    assert (found["paradigms_better"], found["paradigms_worse"]) == (1, 0)
    assert found["difference"] == pytest.approx(46 / 120)
    assert found["difference_low"] < found["difference"] < found["difference_high"]


def test_the_published_test_gives_the_published_p_values():
    assert [f"{published_test(size)['p']:.1e}" for size in ("tiny", "small")] == ["1.2e-24", "7.4e-166"]
