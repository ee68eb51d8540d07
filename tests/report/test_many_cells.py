"""A report of many cells takes minutes and little memory."""

import time

import pytest
from readings import write_results
from relora_study.analysis.results import open_runs
from relora_study.config import Report, read_section
from relora_study.model.device import peak_memory_bytes
from relora_study.report.explore import page
from relora_study.report.figures import FIGURES
from relora_study.report.paper import values
from relora_study.report.style import finish
from relora_study.report.tables import TABLES, write_table


@pytest.mark.slow
def test_the_report_of_200_cells_takes_three_minutes_and_two_gigabytes(raw, tmp_path):
    """Processor seconds of all parts, each of which reads the tables anew, as its job does; imports come on top."""
    study = raw["study"] | {"methods": ["full", "relora"], "seeds": list(range(1, 51))}
    write_results({**raw, "study": study}, tmp_path)
    began = time.process_time()
    for name, draw in FIGURES.items():
        finish(draw(open_runs(tmp_path)), tmp_path / name)
    for name, make in TABLES.items():
        write_table(make(open_runs(tmp_path)), tmp_path / name)
    values(open_runs(tmp_path), read_section(Report, tmp_path / "settings/report.yaml"))
    assert len(page(open_runs(tmp_path))) < 5_000_000
    print(f"{time.process_time() - began:.0f} processor seconds")
    assert time.process_time() - began < 180
    assert peak_memory_bytes() < 2 * 2**30
