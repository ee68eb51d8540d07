"""A training that ends soon after its full-rank start has no reading of adapters: the report is made all the same."""

import shutil

import pandas as pd
import pytest
from relora_study.analysis.results import open_runs
from relora_study.config import Report
from relora_study.report.figures import FIGURES
from relora_study.report.paper import values
from relora_study.report.tables import TABLES
from studies import write_yaml

REPORT = Report(title="", published="off")


@pytest.fixture(scope="module")
def short(written, tmp_path_factory):
    """The study, in which adapters take over after step 120, and are read no more."""
    results = shutil.copytree(written, tmp_path_factory.mktemp("short") / "results")
    for cell in open_runs(results).cells.values():
        folder = results / "cells" / cell.name
        rows = pd.read_csv(folder / "dynamics.csv")
        rows[(rows.quantity != "updates") | (rows.step <= 123)].to_csv(folder / "dynamics.csv", index=False)
        if cell.method.rank:
            settings = cell.model_dump()
            settings["method"] |= {"full_rank_steps": 120}
            write_yaml(folder / "config.yaml", settings)
    return open_runs(results)


def test_every_table_and_the_paper_are_made(short):
    for name in TABLES:
        TABLES[name](short)
    assert TABLES["adapter_pattern"](short).empty
    values(short, REPORT)


@pytest.mark.parametrize("name", ["adapter_pattern", "per_updates"])
def test_figures_of_adapters_are_made(short, name):
    assert FIGURES[name](short).axes
