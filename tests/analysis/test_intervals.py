"""Intervals, against the textbooks' formulas."""

import numpy as np
import pandas as pd
import pytest
from relora_study.analysis.intervals import mean_interval, perplexity_interval
from relora_study.analysis.published import Published
from relora_study.report.tables import final_results
from statsmodels.stats.proportion import proportion_confint


def test_a_band_is_an_interval_of_the_mean_within_the_values():
    values = np.random.default_rng(1).lognormal(size=36)
    low, high = mean_interval(values)
    margin = 1.96 * values.std(ddof=1) / 6
    assert low == pytest.approx(values.mean() - margin, rel=0.2) and high == pytest.approx(
        values.mean() + margin, rel=0.2
    )
    few = mean_interval(np.array([1.0, 2.0]))
    assert min(few) >= 1.0 and max(few) <= 2.0


def test_intervals_are_the_textbooks():
    table = final_results(Published()).set_index(["size", "method"]).loc[("small", "full")]
    low, high = proportion_confint(0.7014 * 67000, 67000, method="wilson")
    assert (table.blimp_accuracy_low, table.blimp_accuracy_high) == pytest.approx((low, high), abs=1e-6)
    texts = pd.DataFrame({"domain": "a", "tokens": 100, "nats": np.random.default_rng(0).normal(500, 40, 400)})
    low, high = perplexity_interval(texts)
    error = 1.96 * texts.nats.std() / 100 / 20  # of the loss; all texts are equally long
    assert np.log([low, high]) == pytest.approx(texts.nats.mean() / 100 + np.array([-error, error]), abs=0.003)
