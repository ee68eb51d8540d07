"""The report: figures, tables and the paper from hand-made readings, so that a wrong column or cell would show."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.transforms import Bbox
from relora_study.analysis.audit import audit
from relora_study.analysis.intervals import mean_interval
from relora_study.analysis.naming import suite_name
from relora_study.analysis.significance import compare
from relora_study.analysis.source import select
from relora_study.config import Evaluation, Report
from relora_study.errors import UserError
from relora_study.files import read_yaml
from relora_study.report.captions import chapters
from relora_study.report.figures import FIGURES
from relora_study.report.paper import values
from relora_study.report.style import finish
from relora_study.report.tables import PUBLISHED_TABLES, TABLES, write_table
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
    log["loss"] += 0.5 * log.step.isin(range(122, 601, 60)) + 9.0 * (log.step == 62)
    log.to_csv(path, index=False)
    figure = FIGURES["resets"](results)
    (line,) = (line for line in figure.axes[0].get_lines() if line.get_label() == "ReLoRA")
    drawn = dict(zip(*line.get_data(), strict=True))
    assert drawn[1] == pytest.approx(0.5), "full rank's loss falls as fast, so only the spike is left"
    assert drawn[0] == pytest.approx(0.0) == drawn[2]
    norms = {line.get_label(): dict(zip(*line.get_data(), strict=True)) for line in figure.axes[2].get_lines()}
    assert (norms["ReLoRA"][1], norms["full rank"][1], norms["ReLoRA"][2]) == pytest.approx((3.0, 1.0, 1.0))
    pyplot.close(figure)


def test_cost_is_drawn_by_the_hours_of_all_cores(results):
    figure = FIGURES["training_cost"](results)
    for axes in figure.axes:
        (line,) = (line for line in axes.get_lines() if line.get_label() == "full rank")
        assert line.get_xdata()[-1] == pytest.approx(600 * 0.1 * 2 / 3600)
    assert figure.axes[-1].get_xlabel() == "CPU core-hours"
    pyplot.close(figure)


def test_a_band_is_an_interval_of_the_mean_within_the_values(results):
    values = np.random.default_rng(1).lognormal(size=36)
    low, high = mean_interval(values)
    margin = 1.96 * values.std(ddof=1) / 6
    assert low == pytest.approx(values.mean() - margin, rel=0.2) and high == pytest.approx(
        values.mean() + margin, rel=0.2
    )
    few = mean_interval(np.array([1.0, 2.0]))
    assert min(few) >= 1.0 and max(few) <= 2.0


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_of_a_figure_overlaps_another(results, tmp_path, name):
    figure = FIGURES[name](results)
    finish(figure, tmp_path / name)
    figure.draw_without_rendering()  # places the labels for the measuring below
    boxes = [(text.get_text(), box) for text, box in drawn_texts(figure)]
    assert len(boxes) > 5
    for number, (text, box) in enumerate(boxes):
        for other, its in boxes[:number]:
            inside = Bbox.intersection(box, its)
            assert inside is None or min(inside.width, inside.height) < 1, f"{text!r} over {other!r}"
        assert box.x0 >= -1 and box.x1 <= figure.bbox.width + 1, f"{text!r} leaves the page"


def drawn_texts(figure):
    """Every text that is drawn, with its box in pixels."""
    texts = [text for legend in figure.legends for text in legend.get_texts()]
    for axes in (axes for axes in figure.axes if axes.axison):
        texts.append(axes.title)
        for axis in (axes.xaxis, axes.yaxis):
            texts += [axis.label, *(tick.label1 for tick in axis._update_ticks() if tick.label1.get_visible())]
    return [(text, text.get_window_extent()) for text in texts if text.get_text().strip()]


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
    markdown = (tmp_path / f"{name}.md").read_text()
    assert markdown.count("\n") == len(rows) + 2 and "nan" not in markdown and "relora_released" not in markdown
    assert r"\toprule" in (tmp_path / f"{name}.tex").read_text()


def test_full_rank_is_read_at_the_multiple_and_relora_after_it(results):
    rows = select(results.labelled(), "weights", "per")
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
    assert row.chance_p == pytest.approx(stats.binom.sf(49, 100, 0.5)), "50 of 100 are right, or more"


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
        assert ("the adapters are dead" in own, "50% of each update is lost" in own) == (dead, lost)
        assert ("the loss jumps" in own) == lost
        assert "the reading is round-off" not in own or found.value.max() > 100
        assert "larger: Adam's bias correction" in own
    adam = found[found.finding == "Adam's state"]
    assert adam.value.tolist() == pytest.approx([3.0] * 4)


def test_every_figure_and_table_has_a_caption_and_no_caption_is_left_over():
    captions = read_yaml(ROOT / "workflow/report/captions.yaml")
    assert list(captions["figures"]) == list(FIGURES)
    assert list(captions["tables"]) == list(TABLES)
    assert list(captions["published"]["tables"]) == list(PUBLISHED_TABLES)
    assert sorted(chapters()) == sorted(FIGURES)


def test_a_missing_reading_names_the_file(results):
    (results.folder / "tiny-full-s42/log.csv").unlink()
    with pytest.raises(UserError, match=r"tiny-full-s42/log\.csv"):
        results.table("log.csv")


@pytest.mark.parametrize("kept", ["full", "relora"])
def test_a_study_without_the_other_method_is_reported_too(results, tmp_path, kept):
    cells = {name: cell for name, cell in results.cells.items() if cell.method_name == kept}
    alone = replace(results, cells=cells)
    for name, make in TABLES.items():
        write_table(make(alone), tmp_path / name)
    assert len(values(alone, Report(title="title", published="off"))["significance"]) == 1, "a header"
    for make in FIGURES.values():
        assert make(alone).axes
        pyplot.close("all")


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


def test_released_means_over_layers_are_in_neither_half(opened, results):
    for axes in FIGURES["first_last_layers"](opened("overlay")).axes:
        assert not any("published" in line.get_label() for line in axes.get_lines())
    pyplot.close("all")


def test_a_ceiling_is_drawn_only_where_it_holds(results):
    def ceilings(**changed):
        cells = {
            name: cell.model_copy(update={"method": cell.method.model_copy(update=changed)})
            for name, cell in results.cells.items()
        }
        figure = FIGURES["update_rank"](replace(results, cells=cells))
        return sum("rank times" in line.get_label() for axes in figure.axes for line in axes.get_lines())

    assert ceilings() == 4 and ceilings(targets=["q_proj"]) == 0 == ceilings(full_rank_steps=60)
    pyplot.close("all")


def test_hours_count_every_device(results):
    hours = TABLES["published_vs_replicated"](results).query("quantity == 'gpu_hours'").ours
    assert hours.tolist() == pytest.approx([600 * 0.1 * 2 / 3600] * len(results.cells)), "two threads"


@pytest.mark.parametrize(
    ("pairs", "name"),
    [
        ({"source": "path", "path": "somewhere/BLiMP.zip"}, "BLiMP (by name)"),  # which is not there
        ({"source": "path", "path": "blimp-project/zorro"}, "zorro"),
        ({"source": "hub", "path": "someone/blimp-nl"}, "blimp-nl"),
        ({"source": "hub"}, "BLiMP"),
        ({"source": "hub", "path": "nyu-mll/blimp"}, "BLiMP"),
        ({"source": "url"}, "BLiMP"),
        ({"source": "path", "path": "suites/zorro"}, "zorro"),
        ({"source": "templated"}, "the project's templated minimal pairs (not BLiMP)"),
    ],
)
def test_only_blimp_is_called_blimp(raw, pairs, name):
    raw = copy.deepcopy(raw["evaluation"])
    raw["minimal_pairs"] |= pairs
    assert suite_name(Evaluation.model_validate(raw), Report(title="", published="off")) == name
