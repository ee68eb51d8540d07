"""The report: figures, tables and the paper from hand-made readings, so that a wrong column or cell would show."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from relora_study.errors import UserError
from relora_study.files import read_yaml
from relora_study.report.captions import chapters
from relora_study.report.figures import FIGURES
from relora_study.report.load import published_readings
from relora_study.report.paper import values
from relora_study.report.significance import compare
from relora_study.report.style import finish
from relora_study.report.tables import RELEASED_TABLES, TABLES, write_table
from scipy import stats

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_with_every_method(results, tmp_path, name):
    figure = FIGURES[name](results)
    labels = {label for axes in figure.axes for label in axes.get_legend_handles_labels()[1]}
    adapted = {"ReLoRA", "ReLoRA as released"}
    assert labels >= (adapted if name in ("adapter_pattern",) else adapted | {"full rank"})  # full rank has no adapters
    assert all(len(line.get_xdata()) for axes in figure.axes for line in axes.get_lines())
    pyplot.close(figure)


def test_a_spike_after_resets_is_drawn_and_the_first_reset_is_not(results):
    path = results.folder / "tiny-relora-s42/log.csv"
    log = pd.read_csv(path)
    log["loss"] = 1.0 + 0.5 * log.step.isin(range(122, 601, 60)) + 9.0 * (log.step == 62)
    log.to_csv(path, index=False)
    figure = FIGURES["resets"](results)
    (line,) = (line for line in figure.axes[0].get_lines() if line.get_label() == "ReLoRA")
    drawn = dict(zip(*line.get_data(), strict=True))
    assert drawn[1] == pytest.approx(0.5) and drawn[0] == pytest.approx(0.0) == drawn[2]
    pyplot.close(figure)


def test_the_same_figure_is_the_same_bytes(results, tmp_path):
    for name in ("one", "two"):
        finish(FIGURES["training_curves"](results), tmp_path / name)
    assert (tmp_path / "one.pdf").read_bytes() == (tmp_path / "two.pdf").read_bytes()
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_written_three_ways(results, tmp_path, name):
    write_table(TABLES[name](results), tmp_path / name)
    rows = pd.read_csv(tmp_path / f"{name}.csv")
    assert len(rows) > 0
    assert (tmp_path / f"{name}.md").read_text().count("\n") == len(rows) + 2
    assert r"\toprule" in (tmp_path / f"{name}.tex").read_text()


def test_full_rank_is_read_at_the_multiple_and_relora_after_it(results):
    rows = published_readings(results, "weights", "per")
    value = rows.set_index(["cell", "component", "layer", "step"]).value
    assert value["tiny-full-s42", "w2", 0, 60] == pytest.approx(1 / 61)
    assert value["tiny-relora-s42", "w2", 0, 120] == pytest.approx(1 / 124)
    assert value["tiny-relora-s42", "w2", 0, 0] == 1.0


def test_the_published_test_is_the_textbook_formula(results):
    row = TABLES["significance"](results).iloc[0]
    pooled = (80 + 50) / 200
    z = (0.8 - 0.5) / np.sqrt(pooled * (1 - pooled) * 2 / 100)
    assert (row.cell, row.against) == ("tiny-relora-s42", "tiny-full-s42")
    assert row.z == pytest.approx(z) and row.p == pytest.approx(stats.norm.sf(z))
    assert row.mcnemar_p == pytest.approx(2 * 0.5**30), "30 pairs differ, all in one direction"
    assert row.difference == pytest.approx(0.3) == row.difference_low == row.difference_high
    assert row.chance_p == pytest.approx(1.0)


def test_holm_counts_only_paradigms_that_survive_it():
    uid = [name for name in "abc" for _ in range(40)]
    other = pd.DataFrame({"UID": uid, "good": -1.0, "bad": 0.0})
    better = other.assign(good=[1.0] * 40 + [1.0] * 6 + [-1.0] * 34 + [-1.0] * 40)
    found = compare(better, other)
    assert 2 * 0.5**6 < 0.05 < 2 * 2 * 0.5**6, "b passes alone, and not beside a and c"
    assert (found["paradigms_better"], found["paradigms_worse"]) == (1, 0)
    assert found["difference"] == pytest.approx(46 / 120)
    assert found["difference_low"] < found["difference"] < found["difference_high"]


def test_the_audits_verdicts_follow_the_readings(results):
    found = TABLES["audit"](results)
    verdict = found.set_index(["cell", "measure"]).verdict
    assert found.value.notna().all()
    for name, dead, lost in (("small-relora-s42", False, False), ("small-relora_released-s42", True, True)):
        own = " / ".join(verdict[name])
        assert ("dead:" in own, "50% of each update is lost" in own) == (dead, lost)
        assert ("the loss jumps" in own) == lost
        assert "the published reading is round-off" not in own or found.value.max() > 100


def test_the_papers_sentences_follow_the_numbers(results):
    found = " ".join(values(results, "T")["findings"])
    assert "relora_released-s42: the adapters' gradient norm is exactly zero" in found
    assert "small-relora-s42: the adapters receive gradients" in found
    assert "minimal pairs 0.500 against 0.800" in found and "is shown at the 5 % level" in found
    json.dumps(values(results, "T"))


def test_every_figure_and_table_has_a_caption_and_no_caption_is_left_over():
    captions = read_yaml(ROOT / "workflow/report/captions.yaml")
    assert list(captions["figures"]) == list(FIGURES)
    assert list(captions["tables"]) == list(TABLES)
    assert list(captions["published"]["tables"]) == list(RELEASED_TABLES)
    assert sorted(chapters()) == sorted(FIGURES)


def test_a_missing_reading_names_the_file(results):
    (results.folder / "tiny-full-s42/log.csv").unlink()
    with pytest.raises(UserError, match=r"tiny-full-s42/log\.csv"):
        results.table("log.csv")
