"""The roofline: the time of kernels on a GPU of round rates, and the speeds that are expected of real GPUs."""

import re
from collections import Counter
from pathlib import Path

import pytest
from relora_study.config import cells, read_study
from relora_study.cost.job_resources import training_minutes
from relora_study.cost.roofline import GPUS, Gpu, expected_seconds, expected_tokens_per_second, share_of_peak
from relora_study.cost.traffic import Kernel

ROOT = Path(__file__).parents[2]
ROUND = Gpu(
    peak=100.0, bytes=10.0, product=50.0, narrow_product=20.0, float32_product=5.0, attention=25.0, launch=0.001
)


@pytest.mark.parametrize(
    ("kernel", "seconds"),
    [
        (Kernel("elementwise", 30.0), 3.0),
        (Kernel("product", 30.0, 100.0), 3.0),
        (Kernel("product", 10.0, 100.0), 2.0),
        (Kernel("narrow product", 10.0, 100.0), 5.0),
        (Kernel("float32 product", 10.0, 100.0), 20.0),
        (Kernel("attention", 10.0, 100.0), 4.0),
    ],
)
def test_a_kernel_takes_as_long_as_moving_or_computing(kernel, seconds):
    assert expected_seconds(Counter([kernel]), ROUND) == pytest.approx(seconds)
    assert expected_seconds(Counter({kernel: 2.5}), ROUND) == pytest.approx(2.5 * seconds)


def test_many_small_kernels_take_the_time_to_start_them():
    assert expected_seconds(Counter({Kernel("elementwise", 0.001): 1000}), ROUND) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def paper():
    study = read_study([ROOT / "config.yaml", ROOT / "workflow/presets/paper.yaml"])
    return {name: cell for name, cell in cells(study).items() if cell.method_name in ("full", "relora")}


def test_a_small_model_uses_a_small_share_of_a_peak(paper):
    for cell in paper.values():
        for gpu in GPUS.values():
            eager, compiled = (expected_tokens_per_second(cell, gpu, on) for on in (False, True))
            assert 1.3 < compiled / eager < 2.5
            assert 0.01 < share_of_peak(cell, gpu, eager) < share_of_peak(cell, gpu, compiled) < 0.45


def measured() -> list[tuple[str, int, bool, float]]:
    """Cell, micro-batch, whether compiled, and tokens a second, as `pytest -m gpu` saw them on an H200."""
    line = r"plan --measure, micro-batch (\d+) *\| (\S+), (compiled|eager) *\| (\d+) k tokens/s"
    found = re.findall(line, (ROOT / "docs/results/gpu_h200.md").read_text())
    return [(cell, int(rows), kind == "compiled", 1e3 * float(rate)) for rows, cell, kind, rate in found]


@pytest.mark.parametrize(("name", "rows", "compiled", "rate"), measured())
def test_expected_speeds_are_half_to_twice_what_an_h200_reached(paper, name, rows, compiled, rate):
    cell = paper[f"{name}-s42"]
    train = cell.train.model_copy(update={"batch_size": rows, "micro_batch_size": rows})  # as the plan measures
    cell = cell.model_copy(update={"train": train, "runtime": cell.runtime.model_copy(update={"processes": 1})})
    assert 0.5 < expected_tokens_per_second(cell, GPUS["H200"], compiled) / rate < 2


def test_measured_rates_replace_those_of_the_data_sheet(paper):
    cell, gpu = paper["small-full-s42"], GPUS["H100"]
    slower = gpu._replace(attention=gpu.attention / 10)
    assert expected_tokens_per_second(cell, slower, True) < 0.7 * expected_tokens_per_second(cell, gpu, True)


def test_jobs_ask_for_three_times_the_expected_time_at_least(paper):
    for cell in paper.values():
        tokens = cell.train.steps * cell.train.batch_size * cell.model.context_length
        speed = cell.runtime.processes * expected_tokens_per_second(cell, GPUS["A100"], compiled=False)
        assert training_minutes(cell) >= 3 * tokens / speed / 60, cell.name
