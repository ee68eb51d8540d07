"""Speeds of the plan, against those that an H200 reached."""

import re
from pathlib import Path

import pytest
from relora_study.config import cells, read_study
from relora_study.cost.estimates import MODES, expected_share_of_peak, expected_tokens_per_second, training_minutes

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def paper():
    study = read_study([ROOT / "config.yaml", ROOT / "workflow/presets/paper.yaml"])
    return {name: cell for name, cell in cells(study).items() if cell.method_name in ("full", "relora")}


def measured() -> list[tuple[str, str, float]]:
    """Cell, mode and tokens a second in micro-batches of 16, as `pytest -m gpu` saw them on an H200."""
    line = r"plan --measure, micro-batch 16 *\| (\S+), (compiled|eager) *\| (\d+) k tokens/s"
    found = re.findall(line, (ROOT / "docs/results/gpu_h200.md").read_text())
    return [(cell, mode, 1e3 * float(rate)) for cell, mode, rate in found]


@pytest.mark.parametrize(("name", "mode", "rate"), measured())
def test_expected_speeds_are_those_that_an_h200_reached(paper, name, mode, rate):
    assert expected_tokens_per_second(paper[f"{name}-s42"], mode) == pytest.approx(rate, rel=0.02)


def test_shares_of_other_widths_lie_between_the_measured_ones(paper):
    def share(width, mode):
        cell = paper["tiny-full-s42"]
        size = cell.size.model_copy(update={"d_model": width})
        return expected_share_of_peak(cell.model_copy(update={"size": size}), mode)

    for mode in MODES:
        assert share(96, mode) < share(192, mode) < share(384, mode)
        assert share(192, mode) == pytest.approx((share(96, mode) + share(384, mode)) / 2)
        assert share(48, mode) == share(96, mode) and share(1024, mode) == share(384, mode)


def test_jobs_ask_for_three_times_the_expected_time_at_least(paper):
    for cell in paper.values():
        tokens = cell.train.steps * cell.train.batch_size * cell.model.context_length
        speed = cell.runtime.processes * expected_tokens_per_second(cell, "eager")
        assert training_minutes(cell) >= 3 * tokens / speed / 60, cell.name
