"""The audit as a table of measures: every key is one measure, and outcomes do not hang on words."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from relora_study.analysis import audit as audits
from relora_study.analysis import evidence
from relora_study.analysis.audit import OF_PUBLISHED, OF_RUNS, audit
from relora_study.analysis.evidence import Reading, jump, jump_noise
from relora_study.analysis.source import while_adapted
from relora_study.report.sentences import PUBLISHED_FINDINGS
from relora_study.report.tables import TABLES
from scipy.stats import spearmanr, ttest_1samp

PACKAGE = Path(audits.__file__).parents[1]


@pytest.mark.parametrize("measures", [OF_RUNS, OF_PUBLISHED])
def test_keys_are_unique_and_some_verdict_always_holds(measures):
    keys = [measure.key for measure in measures]
    assert len(set(keys)) == len(keys)
    for measure in measures:
        outcomes = [verdict.key for verdict in measure.verdicts]
        assert len(set(outcomes)) == len(outcomes) > 1
        assert measure.verdicts[-1].holds(Reading(np.inf, np.nan)) and measure.verdicts[-1].holds(Reading(-1e9, 1e9))


nan = np.nan
OURS, THEIRS = ({measure.key: measure for measure in measures} for measures in (OF_RUNS, OF_PUBLISHED))
THRESHOLDS = [  # measures, key, a reading on either side of a threshold as (value, beside), and both outcomes
    (OURS, "first_gradient", (0.0, nan), (1e-12, nan), "dead", "alive"),
    (OURS, "flat_start", (0.0099, nan), (0.0101, nan), "flat", "moves"),
    (THEIRS, "flat_start", (0.0099, nan), (0.0101, nan), "flat", "moves"),
    (OURS, "update_lost", (0.9e-6, nan), (1.1e-6, nan), "kept", "lost"),
    (OURS, "loss_jump", (0.0099, nan), (0.0101, nan), "level", "jumps"),
    (OURS, "loss_jump", (-0.0099, nan), (-0.0101, nan), "level", "falls"),
    (OURS, "first_loss", (0.022, 0.0221), (0.022, 0.0219), "level", "jumps"),
    (OURS, "first_loss", (0.022, nan), (0.022, 0.0219), "one_reset", "jumps"),
    (OURS, "spike", (0.022, 0.0221), (0.022, 0.0219), "level", "spikes"),
    (OURS, "spike", (0.022, nan), (0.022, 0.0219), "one_reset", "spikes"),
    (OURS, "norm_after_reset", (0.49, nan), (0.51, nan), "restarted", "carried_on"),
    (OURS, "first_share", (1.49, 1.0), (1.51, 1.0), "near", "other"),
    (OURS, "first_share", (0.51, 1.0), (0.49, 1.0), "near", "other"),
    (OURS, "growth", (1.49, nan), (1.51, nan), "level", "grows"),
    (OURS, "correlation", (0.49, nan), (0.51, nan), "other", "follows"),
    (OURS, "distance", (0.099, nan), (0.101, nan), "near", "other"),
    (OURS, "reading_after_reset", (1.099, nan), (1.101, nan), "same", "other"),
    (OURS, "reading_after_reset", (0.901, nan), (0.899, nan), "same", "other"),
    (OURS, "largest_share", (1.0009, nan), (1.0011, nan), "bounded", "above"),
    (OURS, "round_off", (99.0, nan), (101.0, nan), "agree", "round_off"),
    (OURS, "first_update", (9.9, nan), (10.1, nan), "bias", "over_epsilon"),
    (OURS, "first_update", (0.99, nan), (1.01, nan), "no_larger", "bias"),
    (THEIRS, "first_jump", (0.0316, 0.0317), (0.0316, 0.0315), "level", "spikes"),
    (THEIRS, "later_jump", (0.0316, 0.0317), (0.0316, 0.0315), "level", "spikes"),
    (THEIRS, "later_spikes", (0.49, nan), (0.51, nan), "few", "spikes"),
    *((THEIRS, f"last_share_{matrix}", (0.9, 1.49), (0.9, 1.51), "level", "grows") for matrix in ("v", "o", "w2")),
    (THEIRS, "last_share", (0.949, nan), (0.951, nan), "below", "ceiling"),
    (THEIRS, "random_share", (1.0, 1.049), (1.0, 1.051), "near", "other"),
    (THEIRS, "random_share", (1.0, 0.951), (1.0, 0.949), "near", "other"),
    (THEIRS, "condition_number", (99.0, 100.0), (101.0, 100.0), "bfloat16", "float32"),
    (THEIRS, "random_float32", (1e4, 999.0), (1e4, 1001.0), "near", "far"),
]


@pytest.mark.parametrize(("measures", "key", "one", "other", "outcome_of_one", "outcome_of_other"), THRESHOLDS)
def test_a_verdict_turns_at_its_threshold(measures, key, one, other, outcome_of_one, outcome_of_other):
    outcome = lambda reading: measures[key].verdict(Reading(*reading)).key  # noqa: E731
    assert (outcome(one), outcome(other)) == (outcome_of_one, outcome_of_other)


def test_every_measure_has_a_threshold_in_the_table_above():
    tried = {(id(row[0]), row[1]) for row in THRESHOLDS}
    alike = {"last_share": "first_share", "random_float32": "random_bfloat16"}  # they share their verdicts
    tried |= {(at, key.replace(one, other)) for at, key in tried for one, other in alike.items()}
    assert {(id(measures), key) for measures in (OURS, THEIRS) for key in measures} <= tried


def test_what_no_reading_shows_has_no_verdict():
    assert OURS["distance"].verdict(Reading(nan)).words == "not measured"


def test_the_noise_of_a_jump_is_half_of_students_interval_and_stands_in_the_words(results):
    path = results.folder / "tiny-relora-s42/log.csv"
    log, random = pd.read_csv(path), np.random.default_rng(3)
    first = log.step.isin(range(122, 601, 60))  # the first losses after the resets at 121, 181, ...
    rises = random.normal(0.03, 0.1, first.sum())
    log.loc[first, "loss"] += rises
    log.to_csv(path, index=False)
    row = audit(results).set_index(["cell", "key"]).loc[("tiny-relora-s42", "first_loss")]
    low, high = ttest_1samp(rises, 0).confidence_interval(0.95)
    assert low < 0 and row.outcome == "level" and row.verdict == f"no rise beyond noise ({(high - low) / 2:.2g})"


def made_up_loss(spike: float, noise: float = 0.01) -> tuple[pd.Series, list[int]]:
    """A loss by step that falls slowly and is noisy, with ``spike`` in the ten steps after each of nine resets."""
    steps, resets = np.arange(1, 2002), [201, 401, 601, 801, 1001, 1201, 1401, 1601, 1801]
    loss = 5 - steps / 1e5 + np.random.default_rng(1).normal(0, noise, len(steps))
    loss += spike * np.isin((steps - 2) % 200, range(10)) * (steps > 200)
    return pd.Series(loss, steps), resets


def test_a_jump_is_the_highest_of_twenty_steps_over_the_mean_of_fifty():
    loss = pd.Series(0.0, np.arange(1, 301))
    loss[[149, 150, 220, 221]] = [1e6, 51.0, 5.0, 1e6]  # of these, 150 to 200 are before a reset at 200, and 220 after
    assert jump(loss, 200) == pytest.approx(5 - 51 / 51)


def test_a_spike_is_a_jump_beyond_the_jumps_away_from_resets():
    quiet, resets = made_up_loss(0.0)
    jumps = [jump(quiet, at) for at in resets]
    assert min(jumps) > 0, "a largest of twenty lies above a mean without any spike"
    assert max(jumps) < jump_noise(quiet, resets, 2001) < 0.05
    spiking, _ = made_up_loss(0.05)
    assert min(jump(spiking, at) for at in resets) > jump_noise(spiking, resets, 2001)
    assert jump_noise(spiking, resets, 2001) == jump_noise(quiet, resets, 2001), "no spike enters the null"


def test_the_bound_of_noise_is_passed_by_one_of_all_resets_in_five_percent_of_cases():
    random, resets, passed = np.random.default_rng(0), [201, 401, 601, 801], []
    for _ in range(400):
        loss = pd.Series(random.normal(size=1002), np.arange(1, 1003))
        passed.append(max(jump(loss, at) for at in resets) > jump_noise(loss, resets, 1002))
    assert 0.01 < np.mean(passed) < 0.09


@pytest.mark.parametrize(
    ("levels", "correlation", "steady"),
    [([1, 6, 3, 4, 5, 2, 7, 8, 9, 10], 0.806, True), ([1, 6, 3, 4, 5, 2, 7, 9, 8, 10], 0.794, False)],
)
def test_growth_is_steady_where_the_share_rises_with_the_cycle(monkeypatch, levels, correlation, steady):
    assert spearmanr(levels, range(10)).statistic == pytest.approx(correlation, abs=5e-4)
    rows = pd.DataFrame({"size": "tiny", "component": "v", "cycle": range(1, 11), "share": np.divide(levels, 10)})
    monkeypatch.setattr(evidence, "published_shares", lambda: rows)
    assert evidence.growing_share("v", -1)(SimpleNamespace(row="tiny")).beside == (10 if steady else 0)


def test_sentences_ask_for_measures_and_outcomes_that_exist():
    outcomes = {(m.key, verdict.key) for m in OF_PUBLISHED for verdict in m.verdicts}
    assert all((key, outcome) in outcomes for keys, outcome, _ in PUBLISHED_FINDINGS for key in keys)


def test_the_first_loss_after_a_reset_shows_the_merge_alone(results):
    path = results.folder / "tiny-relora-s42/log.csv"
    log = pd.read_csv(path)
    log["loss"] += 0.5 * log.step.isin(range(123, 601, 60))  # two steps after each reset: Adam's first step
    log.to_csv(path, index=False)
    found = audit(results).set_index(["cell", "key"])
    assert found.outcome["tiny-relora-s42", "first_loss"] == "level"
    assert found.outcome["tiny-relora-s42", "spike"] == "spikes"


def test_analysis_imports_nothing_of_the_report():
    for source in (PACKAGE / "analysis").glob("*.py"):
        assert "report" not in [
            part
            for line in source.read_text().splitlines()
            if line.startswith("from ..")
            for part in line.split()[1].strip(".").split(".")
        ], source.name


def test_each_file_of_a_cell_is_read_once(results, monkeypatch):
    read, real = [], pd.read_csv

    def counted(path, *rest, **options):
        read.append(str(path)) if "nrows" not in options else None
        return real(path, *rest, **options)

    monkeypatch.setattr(pd, "read_csv", counted)
    audit(results)
    cells = [path for path in read if "cells" in path]
    assert len(cells) == len(set(cells)) > 0


def test_the_audits_verdicts_follow_the_readings(unchanged):
    found = TABLES["audit"](unchanged)
    verdict = found.set_index(["cell", "measure"]).verdict
    assert found.value.notna().all()
    for name, dead, lost in (("small-relora-s42", False, False), ("small-relora_released-s42", True, True)):
        own = " / ".join(verdict[name])
        assert ("the adapters are dead" in own, "50% of each update is lost" in own) == (dead, lost)
        assert ("the loss jumps" in own) == lost
        assert "the reading is round-off" not in own or found.value.max() > 100
        assert "larger: Adam's bias correction" in own
    adam = found[found.finding == "Adam's state"]
    assert adam.value.tolist() == pytest.approx([3.0] * 4)


def test_adapters_that_leave_v_out_are_reported_too(results):
    path = results.folder / "tiny-relora-s42/dynamics.csv"
    rows = pd.read_csv(path)
    rows[(rows.quantity != "updates") | (rows.component != "v")].to_csv(path, index=False)
    table = TABLES["adapter_pattern"](results).set_index("cell")
    assert np.isnan(table.growth["tiny-relora-s42"]) and table.growth.notna().sum() == len(table) - 1
    found = audit(results)
    growth = found[found.key == "growth"].set_index("cell").verdict
    assert growth["tiny-relora-s42"] == "not measured" != growth["small-relora-s42"]


def test_what_was_not_measured_gets_no_verdict(results):
    for cell in results.cells.values():
        path = results.folder / cell.name / "dynamics.csv"
        pd.read_csv(path).query("step == 0").to_csv(path, index=False)
    found = TABLES["audit"](results)
    missing = found[found.value.isna()]
    assert len(missing) > 10 and set(missing.verdict) == {"not measured"}
    assert "not measured" not in set(found.verdict[found.value.notna()])


def test_updates_of_steps_that_train_whole_weights_are_not_those_of_adapters(make_cell):
    rows = pd.DataFrame({"step": [0, 8, 16, 24] * 2, "quantity": ["updates"] * 4 + ["weights"] * 4, "value": 1.0})
    kept = lambda **switches: while_adapted(rows, make_cell("relora", **switches).method)  # noqa: E731
    assert len(kept()) == 8
    assert kept(full_rank_steps=8).query("quantity == 'updates'").step.tolist() == [16, 24]
    assert kept(full_rank_from=16).query("quantity == 'updates'").step.tolist() == [0, 8, 16]
    assert len(kept(full_rank_steps=8).query("quantity == 'weights'")) == 4
