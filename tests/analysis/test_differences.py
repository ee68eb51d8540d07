"""Differences paired by seed, against closed forms and enumeration."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from relora_study.analysis.differences import holm, paired_difference, sign_flip_p
from scipy.stats import t

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
