"""The authors' values as a source: their steps in our count, and what figures take from them."""

import pandas as pd
import pytest
from relora_study.analysis.published import FOLDER, Published, loss_around_resets, reset_steps
from relora_study.analysis.published_recipe import LABELS, published_cells
from relora_study.analysis.source import overlaid
from relora_study.config import Report
from relora_study.config.schedule import is_reset, learning_rate_ratio
from relora_study.report.figures import FIGURES


def test_the_authors_step_0_is_our_step_1_and_their_rate_at_a_reset_is_zero():
    log = Published().table("log.csv").set_index(["size", "method", "step"])
    curves = pd.read_csv(FOLDER / "training_curves.csv")
    theirs = curves[(curves.metric == "train_loss") & (curves["size"] == "tiny") & (curves.method == "relora")]
    ours = log.loc["tiny", LABELS["relora"]]
    for counter in (2000, 4000):
        assert ours.learning_rate[counter + 1] == 0, "the rate of the step that begins at the counter"
        assert ours.loss[counter + 1] == theirs.set_index("step").value[counter]
    method = published_cells()[f"tiny-{LABELS['relora']}"].method
    assert ours.learning_rate.to_list() == pytest.approx(
        [3e-4 * learning_rate_ratio(method, s - 1) for s in ours.index]
    )


def test_resets_follow_the_steps_that_the_schedule_says():
    method = published_cells()[f"tiny-{LABELS['relora']}"].method
    assert reset_steps()[0] == 2001 and all(is_reset(method, step) for step in reset_steps())
    around = loss_around_resets("tiny")
    assert 0 in set(around.step) and around.reset_step.min() == 4001
    assert around[around.step > 0].groupby("reset_step").step.min().min() == 5, "no value shows a merge alone"


def test_an_overlay_shows_the_sizes_that_the_authors_have_and_draws_the_others(results):
    cells = {
        name.replace("tiny", "mine"): cell.model_copy(update={"size_name": cell.size_name.replace("tiny", "mine")})
        for name, cell in results.cells.items()
    }
    renamed = {name: cell for name, cell in cells.items() if cell.size_name == "mine"}
    for name, cell in list(renamed.items()):
        renamed[name] = cell.model_copy(update={"name": name.replace("mine", "tiny")})
    source = overlaid(type(results)(results.folder, renamed), Report(title="", published="overlay"))
    for name in ("training_curves", "training_cost"):
        labels = {line.get_label() for axes in FIGURES[name](source).axes for line in axes.get_lines()}
        assert "ReLoRA" in labels and not labels & set(LABELS.values())
