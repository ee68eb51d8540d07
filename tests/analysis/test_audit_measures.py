"""The audit as a table of measures: every key is one measure, and outcomes do not hang on words."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from relora_study.analysis import audit as audits
from relora_study.analysis.audit import OF_PUBLISHED, OF_RUNS, audit
from relora_study.analysis.evidence import Reading
from relora_study.report.sentences import PUBLISHED_FINDINGS

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
