"""The figures of docs/findings.md are those that docs/results gives, and its numbers stand in their tables."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.testing.compare import compare_images
from relora_study.analysis.experiments import DOCUMENTS
from relora_study.report.findings import CONTROL, FIGURES, TABLES, draw, numbers, with_tables
from relora_study.report.style import finish

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_drawn_again_from_its_table(name, tmp_path):
    finish(draw(name, DOCS / "results"), tmp_path / name)
    assert compare_images(str(DOCS / f"images/{name}.png"), str(tmp_path / f"{name}.png"), tol=1) is None


def test_every_figure_and_table_of_the_findings_is_in_the_repository():
    tables = {place.stem for place in (DOCS / "results").glob("*.csv") if not place.name.endswith(DOCUMENTS)}
    assert {place.stem for place in (DOCS / "images").glob("*.png")} == set(FIGURES) <= tables
    marked = re.findall(r"<!-- table \w+ of ([\w ]+):", (DOCS / "findings.md").read_text())
    assert {table for names in marked for table in names.split(" and ")} == tables


def test_the_pages_tables_are_those_that_the_runs_give():
    page = (DOCS / "findings.md").read_text()
    assert with_tables(page, DOCS / "results") == page, "run `make findings`"
    assert all(f"images/{name}.png" in page for name in FIGURES)


PAGES = [DOCS.parent / "README.md", DOCS / "findings.md"]
ANSWER = re.compile(r"<!-- answer -->(.*?)<!-- end of the answer -->", re.DOTALL)
UNMARKED = re.compile(r"\d\.\d+(?![\d.]*<!--)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_number_in_prose_is_what_its_table_gives(page):
    text = page.read_text()
    found = list(numbers(text, DOCS / "results"))
    assert len(found) == len(re.findall(r"\d<!--", text)) >= 5, "a mark is broken over two lines"
    assert [said for said, _ in found] == [given for _, given in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_answer_has_no_number_without_a_table(page):
    (answer,) = ANSWER.findall(page.read_text())
    assert not UNMARKED.findall(answer)


def test_a_wrong_number_in_prose_is_found():
    page = "It ends 0.99<!-- groups of groups: over_one_rate of relora_repaired --> nats above."
    ((said, given),) = numbers(page, DOCS / "results")
    assert said != given == "0.11"


def test_a_changed_run_changes_the_page(tmp_path):
    shutil.copytree(DOCS / "results", tmp_path / "results")
    place = tmp_path / "results/ladder.csv"
    place.write_text(re.sub(r"(?m)^(tiny-relora-s42,.*),\d\.\d+,$", r"\1,9.0,", place.read_text()))
    page = (DOCS / "findings.md").read_text()
    assert with_tables(page, tmp_path / "results") != page


def test_a_methods_difference_to_the_control_is_paired_by_size_and_seed():
    found = {CONTROL: [-0.1, -0.2, 0.5], "galore": [-0.3, -0.2, 0.6]}
    seeds = [("width_48", 48, 42), ("width_48", 48, 43), ("width_96", 96, 42)]
    rows = [(*seed, name, gap) for name, gaps in found.items() for seed, gap in zip(seeds, gaps, strict=True)]
    table = TABLES["beside_control"](pd.DataFrame(rows, columns=["size", "d_model", "seed", "method", "gap"]))
    assert table.method.tolist() == ["galore", "galore"] and table.seeds.tolist() == [2, 1]
    assert table.difference.tolist() == pytest.approx([-0.1, 0.1])


def test_more_tokens_change_a_gap_by_size_and_seed():
    columns = ["size", "d_model", "seed", "method", "gap"]
    tuned = [
        ("width_48", 48, 42, "relora", 0.3),
        ("width_48", 48, 43, "relora", 0.5),
        ("width_96", 96, 42, "relora", 9),
    ]
    longer = [("width_48", 48, 43, "relora", 0.4), ("width_48", 48, 42, "relora", 0.1)]
    table = TABLES["with_more_tokens"](pd.DataFrame(longer, columns=columns), pd.DataFrame(tuned, columns=columns))
    assert table.seeds.tolist() == [2] and table.change.tolist() == pytest.approx([-0.15])
