"""Responses to what a sweep varies: means, intervals, and when a lowest loss is called best."""

import math

import numpy as np
import pandas as pd
import pytest
from readings import swept
from relora_study.analysis import experiments
from relora_study.analysis.experiments import columns
from scipy.stats import t, ttest_rel


def responses(rows, keys):
    return experiments.responses(swept(rows), keys)


def changes(rows, against):
    return experiments.changes(swept(rows), against)


def sweep_table(rows, keys, against):
    return experiments.sweep_table(swept(rows), keys, against)


def runs(losses: dict[float, list[float]], **columns) -> pd.DataFrame:
    rows = [
        {"size": "tiny", "method": "full", "learning_rate": rate, "seed": seed, "loss": loss, "diverged_at": np.nan}
        for rate, seeds in losses.items()
        for seed, loss in enumerate(seeds)
    ]
    return pd.DataFrame(rows).assign(**columns)


def test_mean_and_interval_over_seeds():
    table = responses(runs({1e-3: [5.0, 5.2, 5.1], 3e-3: [4.0, 4.1, 4.2], 1e-2: [6.0, 6.0, 6.3]}), ["learning_rate"])
    row = table.iloc[1]
    half = t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert (row.seeds, row.loss) == (3, pytest.approx(4.1))
    assert (row.loss_low, row.loss_high) == (pytest.approx(4.1 - half), pytest.approx(4.1 + half))
    assert table.verdict.tolist() == ["", "best", ""]


@pytest.mark.parametrize("edge", [1e-3, 1e-2])
def test_a_lowest_loss_at_the_edge_is_not_called_best(edge):
    losses = {rate: [4.0 if rate == edge else 5.0] for rate in (1e-3, 3e-3, 1e-2)}
    table = responses(runs(losses), ["learning_rate"]).set_index("learning_rate")
    assert table.verdict[edge] == "lowest, at the edge of learning_rate" and (table.verdict != "").sum() == 1


def test_words_have_no_edge():
    tried = runs({1.0: [4.0, 4.1], 2.0: [5.0, 5.2]}).assign(merge=["scaled"] * 2 + ["unscaled"] * 2)
    assert responses(tried, ["merge"]).verdict.tolist() == ["best", ""]


def test_a_lowest_loss_is_best_only_where_every_other_is_clearly_higher_by_seed():
    tried = {1e-3: [9.0, 9.5], 2e-3: [5.0, 5.5], 4e-3: [5.1, 5.4], 8e-3: [5.01, 5.511], 1.6e-2: [9.0, 9.6]}
    assert ttest_rel(tried[8e-3], tried[2e-3]).confidence_interval(0.95).low > 0
    table = responses(runs(tried), ["learning_rate"])
    assert table.verdict.tolist() == ["", "lowest", "not clearly higher", "", ""]
    del tried[4e-3]
    assert responses(runs(tried), ["learning_rate"]).verdict.tolist() == ["", "best", "", ""]


def test_one_seed_shows_a_lowest_loss_and_no_best():
    table = responses(runs({1e-3: [5.0], 2e-3: [4.0], 4e-3: [6.0]}), ["learning_rate"])
    assert table.verdict.tolist() == ["", "lowest", ""]


def test_a_point_with_a_diverged_seed_is_never_best():
    tried = runs({1e-3: [5.0, 5.0], 3e-3: [1.0, np.nan], 1e-2: [5.5, 5.5], 3e-4: [6.0, 6.0]})
    tried.loc[tried.loss.isna(), "diverged_at"] = 12
    table = responses(tried, ["learning_rate"]).set_index("learning_rate")
    assert table.diverged[3e-3] == 1 and math.isnan(table.loss[3e-3])
    assert table.verdict[1e-3] == "best"


def test_each_size_and_method_has_a_best_of_its_own():
    tried = pd.concat(
        [runs({1.0: [3.0], 2.0: [2.0], 3.0: [4.0]}), runs({1.0: [3.0], 2.0: [1.0], 3.0: [4.0]}, method="relora")]
    )
    table = responses(tried, ["learning_rate"])
    assert table[table.verdict == "lowest"].method.tolist() == ["full", "relora"]


LADDER = {"released": [6.0, 6.2, 6.1], "repaired": [5.5, 5.8, 5.3], "full": [5.0, 5.1, 5.2]}


def ladder(losses: dict[str, list[float]]) -> pd.DataFrame:
    return pd.concat([runs({0.0: values}, method=method) for method, values in losses.items()], ignore_index=True)


def test_each_step_is_compared_with_the_one_before_by_seed():
    table = changes(ladder(LADDER), "previous").set_index("method")
    assert table.compared_with.to_dict() == {"repaired": "released", "full": "repaired"}
    oracle = ttest_rel(LADDER["repaired"], LADDER["released"]).confidence_interval(0.95)
    row = table.loc["repaired"]
    assert (row.difference_low, row.difference_high) == (pytest.approx(oracle.low), pytest.approx(oracle.high))
    assert row.difference == pytest.approx(np.mean(LADDER["repaired"]) - np.mean(LADDER["released"]))
    assert row.p_holm == pytest.approx(ttest_rel(LADDER["repaired"], LADDER["released"]).pvalue * 2)
    assert (row.chance, row.verdict) == ("seeds", "undecided")


def test_each_method_is_compared_with_one_of_them_wherever_it_is_listed():
    table = changes(ladder(LADDER), "full")
    assert table.method.tolist() == ["released", "repaired"] and set(table.compared_with) == {"full"}
    assert (table.difference > 0).all()


def test_methods_are_compared_at_equal_numbers_of_tokens():
    closer = {name: [loss / 2 for loss in losses] for name, losses in LADDER.items()}
    both = pd.concat([ladder(closer).assign(tokens=4096), ladder(LADDER).assign(tokens=1024)])
    table = experiments.changes(experiments.at_budgets(swept(both)), "full").set_index(["size", "method"])
    assert [*dict.fromkeys(table.index.get_level_values(0))] == ["1024", "4096"], "in the order of tokens"
    assert table.difference["1024", "repaired"] == pytest.approx(2 * table.difference["4096", "repaired"]) != 0


def test_a_diverged_seed_is_left_out_of_the_pairs_and_counted_in_the_means():
    losses = LADDER | {"repaired": [5.5, math.nan, 5.3]}
    table = sweep_table(ladder(losses), [], "previous").set_index("method")
    assert table.seeds_paired.tolist()[1:] == [2, 2] and table.seeds.tolist() == [3, 3, 3]
    assert set(table.verdict.dropna()) <= {"", "undecided", "higher", "lower"}, "nothing varies that could be best"
    assert math.isnan(table.loss["repaired"]) and table.difference["repaired"] == pytest.approx((-0.5 - 0.8) / 2)


def test_a_list_that_varies_is_a_word_of_its_own():
    one = runs({0.0: [5.0, 5.1]})
    tried = [one.assign(**columns({"betas": [0.9, second]})) for second in (0.95, 0.99)]
    table = responses(pd.concat(tried, ignore_index=True), ["betas"])
    assert table.betas.tolist() == ["0.9, 0.95", "0.9, 0.99"] and table.verdict.tolist()[0] == "lowest"
