"""Runs as a source: what is read from their files, at which steps."""

import pandas as pd
import pytest
from relora_study.analysis.source import select
from relora_study.errors import UserError


def test_full_rank_is_read_at_the_multiple_and_relora_after_it(unchanged):
    rows = select(unchanged.labelled(), "weights", "per")
    value = rows.set_index(["cell", "component", "layer", "step"]).value
    assert value["tiny-full-s42", "w2", 0, 60] == pytest.approx(1 / 61)
    assert value["tiny-relora-s42", "w2", 0, 120] == pytest.approx(1 / 124)
    assert value["tiny-relora-s42", "w2", 0, 0] == 1.0


def test_a_missing_reading_names_the_file(results):
    (results.folder / "tiny-full-s42/log.csv").unlink()
    with pytest.raises(UserError, match=r"tiny-full-s42/log\.csv"):
        results.table("log.csv")


def test_a_log_of_an_earlier_version_is_said_in_one_line_with_the_way_out(results):
    place = results.folder / "tiny-full-s42/log.csv"
    pd.read_csv(place).drop(columns="update_norm").to_csv(place, index=False)
    with pytest.raises(UserError, match="has no column update_norm: an earlier version wrote it; delete the cell"):
        results.table("log.csv")
