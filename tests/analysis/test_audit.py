"""The audit as a table of measures: every key is one measure, and outcomes do not hang on words."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from relora_study.analysis import audit as audits
from relora_study.analysis.audit import OF_PUBLISHED, OF_RUNS, audit
from relora_study.analysis.evidence import Reading
from relora_study.analysis.source import while_adapted
from relora_study.report.sentences import PUBLISHED_FINDINGS
from relora_study.report.tables import TABLES

PACKAGE = Path(audits.__file__).parents[1]


@pytest.mark.parametrize("measures", [OF_RUNS, OF_PUBLISHED])
def test_keys_are_unique_and_some_verdict_always_holds(measures):
    keys = [measure.key for measure in measures]
    assert len(set(keys)) == len(keys)
    for measure in measures:
        outcomes = [verdict.key for verdict in measure.verdicts]
        assert len(set(outcomes)) == len(outcomes) > 1
        assert measure.verdicts[-1].holds(Reading(np.inf, np.nan)) and measure.verdicts[-1].holds(Reading(-1e9, 1e9))


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
