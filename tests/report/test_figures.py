"""Figures, from hand-made readings: a wrong line or a text over another would show."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.transforms import Bbox
from readings import held_out_of, write_results
from relora_study.analysis.results import open_runs
from relora_study.config import Report
from relora_study.report.captions import captions
from relora_study.report.figures import FIGURES
from relora_study.report.figures.parts import yardstick_lines
from relora_study.report.paper import values
from relora_study.report.style import EMPTY, finish, panels
from relora_study.report.tables import TABLES, write_table
from relora_study.storage.files import write_csv

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_with_every_method(drawn, name):
    figure = drawn(name)
    labels = {label for axes in figure.axes for label in axes.get_legend_handles_labels()[1]}
    adapted = {"ReLoRA", "ReLoRA as released"}
    assert labels >= (adapted if name in ("adapter_pattern",) else adapted | {"full rank"})  # full rank has no adapters
    assert all(len(line.get_xdata()) for axes in figure.axes for line in axes.get_lines())


def test_a_caption_ends_with_the_files_that_its_figure_reads(unchanged):
    others = {"losses": "cells/*/held_out.csv", "yardsticks": "evaluation/yardsticks.csv"}
    for name, text in captions(unchanged.cells, False, "pairs")["figures"].items():
        runs = replace(unchanged)
        pyplot.close(FIGURES[name](runs))
        read = {f"cells/*/{file}" for file in runs._read_already if file.endswith(".csv")}
        read |= {file for part, file in others.items() if part in runs.__dict__}
        _, _, named = text.removesuffix(".").rpartition(" From ")
        own = {file for file in named.split(", ") if not file.startswith("tables/")}
        assert own == read, name


def test_the_gap_over_training_is_of_one_batch_and_ends_in_the_gap_in_held_out_loss(results):
    """A batch's difficulty cancels, a method ahead of full rank has a minus, and ticks mark resets."""
    hard = np.random.default_rng(0).normal(size=600)
    for name, cell in results.cells.items():
        path, over = results.folder / name, -0.2 * (cell.method_name == "relora")
        log = pd.read_csv(path / "log.csv")
        log.assign(loss=5 + hard + over).to_csv(path / "log.csv", index=False)
        write_csv(path / "held_out.csv", held_out_of(6.0 + 2 * over))
    figure = FIGURES["gap_over_training"](results)
    for axes in figure.axes:
        lines = {line.get_label(): line for line in axes.get_lines()}
        assert lines["ReLoRA"].get_ydata() == pytest.approx(np.full(600, -0.2))
        assert lines["_resets"].get_xdata().tolist() == list(range(61, 600, 60))
        named = {text.get_text(): text.get_position()[1] for text in axes.texts}
        assert named["ReLoRA −0.40"] == pytest.approx(-0.4, abs=0.05) and "full rank" in named
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim(), "sizes compare"
    finish(figure, results.folder / "gap", {"relora": ["tiny, ReLoRA, at step 9"]})
    assert not figure.legends and figure.axes[0].texts[0].get_text() == "ReLoRA −0.40 †"


def test_the_gap_over_training_of_several_seeds_has_a_band(raw, tmp_path):
    write_results({**raw, "study": {"sizes": ["tiny"], "methods": ["full", "relora"], "seeds": [1, 2]}}, tmp_path)
    (axes,) = FIGURES["gap_over_training"](open_runs(tmp_path)).axes
    assert len(axes.collections) == 1
    pyplot.close("all")


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


def test_cost_is_drawn_by_the_minutes_of_all_cores(unchanged):
    figure = FIGURES["training_cost"](unchanged)
    for axes in figure.axes:
        (line,) = (line for line in axes.get_lines() if line.get_label() == "full rank")
        assert line.get_xdata()[-1] == pytest.approx(600 * 0.1 * 2 / 60)
    assert figure.axes[-1].get_xlabel() == "CPU core-minutes"
    pyplot.close(figure)


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_of_a_figure_overlaps_another(drawn, name):
    figure = drawn(name)
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
        texts += [axes.title, *(text for text in axes.texts if text.get_gid())]
        for axis in (axes.xaxis, axes.yaxis):
            texts += [axis.label, *(tick.label1 for tick in axis._update_ticks() if tick.label1.get_visible())]
    return [(text, text.get_window_extent()) for text in texts if text.get_text().strip()]


def test_the_same_figure_is_the_same_bytes(drawn, figures, unchanged, tmp_path):
    drawn("training_curves")
    finish(FIGURES["training_curves"](unchanged), tmp_path / "again")
    for ending in ("pdf", "png"):
        first = figures / f"training_curves.{ending}"
        assert first.read_bytes() == (tmp_path / f"again.{ending}").read_bytes()


@pytest.mark.parametrize("kept", ["full", "relora"])
def test_a_study_without_the_other_method_is_reported_too(unchanged, tmp_path, kept):
    cells = {name: cell for name, cell in unchanged.cells.items() if cell.method_name == kept}
    alone = replace(unchanged, cells=cells)
    for name, make in TABLES.items():
        write_table(make(alone), tmp_path / name)
    assert len(values(alone, Report(title="title", published="off"))["significance"]) == 1, "a header"
    for make in FIGURES.values():
        assert make(alone).axes
        pyplot.close("all")


def test_released_means_over_layers_are_in_neither_half(opened, results):
    for axes in FIGURES["first_last_layers"](opened("overlay")).axes:
        assert not any("published" in line.get_label() for line in axes.get_lines())
    pyplot.close("all")


def test_a_ceiling_is_drawn_only_where_it_holds(unchanged):
    def ceilings(**changed):
        cells = {
            name: cell.model_copy(update={"method": cell.method.model_copy(update=changed)})
            for name, cell in unchanged.cells.items()
        }
        figure = FIGURES["update_rank"](replace(unchanged, cells=cells))
        return sum("rank times" in line.get_label() for axes in figure.axes for line in axes.get_lines())

    assert ceilings() == 4 and ceilings(targets=["q_proj"]) == 0 == ceilings(full_rank_steps=60)
    pyplot.close("all")


def test_a_panel_without_any_number_says_so_and_the_others_do_not(tmp_path):
    figure, grid = panels(3, 1)
    grid[0, 0].plot([1, 2], [3, 4])
    grid[1, 0].plot([1, 2], [float("nan")] * 2)
    grid[2, 0].axhline(0.5)
    finish(figure, tmp_path / "figure")
    assert [[text.get_text() for text in axes.texts] for axes in grid[:, 0]] == [[], [EMPTY], [EMPTY]]


def with_yardsticks(losses, columns=1):
    """Panels with a loss that falls from 7 to 5, and the yardsticks ``losses``."""
    figure, grid = panels(1, columns)
    for axes in grid[0]:
        axes.plot([0, 1, 2], [7.0, 5.5, 5.0], label="full rank")
        axes.set_title("tiny")
        yardstick_lines(axes, losses)
    return figure, grid[0]


def yardsticks(axes):
    """The losses at which lines cross the whole of ``axes``, and its texts."""
    lines = [line.get_ydata()[0] for line in axes.get_lines() if list(line.get_xdata()) == [0, 1]]
    return lines, [text.get_text() for text in axes.texts]


def test_yardsticks_near_the_data_are_lines_with_a_name_and_the_axis_grows_to_them():
    figure, (axes,) = with_yardsticks({"unigram": 6.2, "bigram": 4.8, "trigram": 4.1})
    assert yardsticks(axes) == ([4.1, 4.8, 6.2], ["trigram", "bigram", "unigram"])
    assert [text.get_position() for text in axes.texts] == [(1.01, 4.1), (1.01, 4.8), (1.01, 6.2)]
    assert axes.get_ylim()[0] < 4.1
    assert axes.get_legend_handles_labels()[1] == ["full rank"]
    pyplot.close(figure)


def test_yardsticks_far_from_the_data_are_words_at_the_edge_and_squeeze_nothing():
    figure, (axes,) = with_yardsticks({"unigram": 8.5, "bigram": 3.9, "trigram": 3.5})
    assert yardsticks(axes) == ([], ["above: unigram 8.50", "below: trigram 3.50, bigram 3.90"])
    assert axes.get_ylim() == pytest.approx((4.9, 7.1)), "the curve alone sets the axis"
    pyplot.close(figure)


@pytest.mark.parametrize(
    "losses", [(5.2, 5.19, 5.18), (7.0, 7.0, 7.0), (5.0, 5.0, 5.0), (8.6, 7.9, 7.85), (8.6, 4.0, 3.9), (9.0, 8.5, 8.4)]
)
def test_labels_of_yardsticks_overlap_no_text_no_curve_and_no_other_panel(losses):
    figure, row = with_yardsticks(dict(zip(("unigram", "bigram", "trigram"), losses, strict=True)), columns=2)
    figure.draw_without_rendering()
    curves = [line.get_transform().transform_path(line.get_path()) for line in (axes.get_lines()[0] for axes in row)]
    boxes = [(text.get_text(), text.get_window_extent()) for axes in row for text in axes.texts]
    others = [(text.get_text(), box) for text, box in drawn_texts(figure)]
    for number, (text, box) in enumerate(boxes):
        for other, its in boxes[:number] + others:
            inside = Bbox.intersection(box, its)
            assert inside is None or min(inside.width, inside.height) < 1, f"{text!r} over {other!r}"
        assert not any(curve.intersects_bbox(box, filled=False) for curve in curves), f"{text!r} over a curve"
        assert box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height, f"{text!r} leaves the page"
    assert all(box.x1 < row[1].bbox.x0 for _, box in boxes[: len(boxes) // 2]), "a label in the next panel"
    pyplot.close(figure)


def test_a_panel_without_any_number_has_no_yardsticks(tmp_path):
    figure, ((axes,),) = panels(1, 1)
    axes.plot([1, 2], [float("nan")] * 2)
    yardstick_lines(axes, {"unigram": 6.2})
    finish(figure, tmp_path / "figure")
    assert yardsticks(axes) == ([], [EMPTY])
