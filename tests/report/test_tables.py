"""Tables, from hand-made readings: a wrong column or cell would show."""

import pandas as pd
import pytest
from relora_study.report.tables import TABLES, write_table


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_written_three_ways(unchanged, tmp_path, name):
    write_table(TABLES[name](unchanged), tmp_path / name)
    rows = pd.read_csv(tmp_path / f"{name}.csv")
    assert len(rows) > 0
    markdown = (tmp_path / f"{name}.md").read_text()
    assert markdown.count("\n") == len(rows) + 2 and "nan" not in markdown and "relora_released" not in markdown
    assert r"\toprule" in (tmp_path / f"{name}.tex").read_text()


def test_hours_count_every_device(unchanged):
    hours = TABLES["published_vs_replicated"](unchanged).query("quantity == 'gpu_hours'").ours
    assert hours.tolist() == pytest.approx([600 * 0.1 * 2 / 3600] * len(unchanged.cells)), "two threads"
