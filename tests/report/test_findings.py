"""The figures of docs/findings.md are those that docs/results gives, and its numbers stand in their tables."""

import itertools
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.testing.compare import compare_images
from relora_study.analysis.experiments import DOCUMENTS, Swept
from relora_study.analysis.published_recipe import PARAMETERS, TOKENS
from relora_study.analysis.scaling import Law
from relora_study.report.findings import FIGURES, TABLES, draw, numbers, swept, with_tables
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
    place = tmp_path / "results/default_differences.csv"
    place.write_text(re.sub(r"(?m)^(tiny,relora,held_out_loss,1,0),0\.\d+,", r"\1,9.0,", place.read_text()))
    page = (DOCS / "findings.md").read_text()
    assert with_tables(page, tmp_path / "results") != page


def test_what_a_doubling_of_the_tokens_adds_is_the_slope_of_a_line_through_the_gaps():
    names = ("budgets", "budgets_frozen", "longest")
    found = {row.method: row for row in TABLES["growth"](swept(names, DOCS / "results")).itertuples()}
    runs = pd.concat([pd.read_csv(DOCS / f"results/{name}.csv") for name in names])
    losses = runs.pivot_table(index="tokens", columns="method", values="loss")
    for method in ("lora", "relora_repaired", "matrices_frozen"):
        slope, _ = np.polyfit(np.log2(losses.index), losses[method] - losses["full"], 1)
        row = found[method]
        assert row.per_doubling == pytest.approx(slope, abs=1e-7), method
        assert row.per_doubling_low < row.per_doubling < row.per_doubling_high
    assert "full_jagged" not in found, "it has two lengths"


def test_the_gap_at_the_papers_sizes_is_that_of_laws_which_made_the_losses():
    laws = {"full": Law(0.5, 6.0, 6.0, 0.34, 0.28), "lora": Law(0.6, 6.0, 6.0, 0.34, 0.28)}
    rows = []
    for (size, tokens, seed), method in itertools.product(itertools.product("abc", (1e6, 5e6, 2e7), (1, 2)), laws):
        parameters = {"a": 2e5, "b": 5e5, "c": 2e6}[size]
        told = {"size": size, "method": method, "seed": seed, "tokens": tokens}
        loss = laws[method].at(parameters, tokens) * (1 + seed / 1e4)
        rows.append({**told, "loss": float(loss), "tokens_per_parameter": tokens / parameters})
    (row,) = TABLES["law"](Swept(pd.DataFrame(rows), None, 0.03)).to_dict("records")
    assert (row["method"], row["cells"]) == ("lora", 18)
    for size, parameters in PARAMETERS.items():
        expected = laws["lora"].at(parameters, TOKENS) - laws["full"].at(parameters, TOKENS)
        assert row[f"gap_at_{size}"] == pytest.approx(float(expected), rel=0.02)
        assert row[f"gap_at_{size}_low"] <= row[f"gap_at_{size}"] <= row[f"gap_at_{size}_high"]


def test_both_climbs_are_compared_with_the_full_rank_cells_of_their_seeds():
    names = ("implementations", "rewarmup")
    found = TABLES["climbs"](swept(names, DOCS / "results")).set_index("method")
    tables = {name: pd.read_csv(DOCS / f"results/{name}.csv") for name in names}
    losses = {name: table.pivot(index="seed", columns="method", values="loss") for name, table in tables.items()}
    assert set(found.index) == set(losses["rewarmup"])
    for column, name in (("after_3", "implementations"), ("after_30", "rewarmup")):
        expected = losses[name].sub(losses["implementations"].full, axis=0).mean()  # a diverged seed has no loss
        assert found[column].to_numpy() == pytest.approx(expected[found.index].to_numpy(), abs=1e-6), name


def test_what_adapters_reach_is_a_mean_over_the_seeds_of_each_method_of_causes():
    cells = pd.read_csv(DOCS / "results/readings.csv")
    found = TABLES["reach"](cells).set_index("method")
    ours = cells[(cells.study == "causes") & (cells.method == "lora_steady")]
    assert found.in_reach.lora_steady == pytest.approx(ours["adapters.gradient_share"].mean())
    assert found.rank_of_the_net_update.lora_steady == pytest.approx(ours["cumulative_update.effective_rank"].mean())
    assert found.gap.is_monotonic_increasing and found.seeds.eq(3).all()
    assert found.in_reach.matrices_frozen == 0


def test_methods_whose_adapters_reach_all_or_nothing_are_left_out_of_the_narrower_table():
    cells = pd.read_csv(DOCS / "results/readings.csv")
    counts = [TABLES[kind](cells).set_index("reading").cells.max() for kind in ("predictors", "predictors_within")]
    part = cells["adapters.gradient_share"].between(0.01, 0.99)
    assert counts == [len(cells), part.sum()]


def test_widths_are_compared_on_equally_many_tokens_a_parameter_as_alone():
    """The rows of width 48 are those of its own table, but for Holm's correction, which runs over more of them."""
    names = ("budgets", "budgets_frozen", "narrow", "narrow_frozen", "wide", "wide_frozen")
    together = TABLES["by_width"](swept(names, DOCS / "results")).set_index(["size", "method"]).difference
    alone = TABLES["by_tokens"](swept(names[:2], DOCS / "results")).set_index(["tokens", "method"]).difference
    for told, tokens in (("1_token", 614_400), ("5_tokens", 2_457_600)):
        ours = together[f"width_48_on_{told}_a_parameter"]
        assert ours.to_dict() == pytest.approx(alone[tokens].to_dict(), nan_ok=True)
