"""The benchmarks' cases build, and what they compare is what they say."""

import sys
from pathlib import Path

import pandas as pd
import pytest
from relora_study.cost.estimates import flops_per_token
from relora_study.model.build import count_parameters
from relora_study.model.relora import adapters
from relora_study.train.optimizer import count_optimizer_numbers

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import methods
from activations import kept_bytes
from common import seconds_in_turns
from train import paper_or_default


@pytest.mark.parametrize("paper", [False, True])
def test_the_cases_are_both_sizes_with_and_without_adapters(paper):
    chosen = paper_or_default(paper)
    assert list(chosen) == ["tiny-full", "tiny-relora", "small-full", "small-relora"]
    assert chosen["small-relora"].size.d_model == (384 if paper else 192)
    assert chosen["small-relora"].method.rank == (16 if paper else 8)


def test_cases_take_turns_and_the_first_round_does_not_count():
    order = []
    found = seconds_in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * 4 and set(found) == {"a", "b"}


def test_a_run_holds_the_bytes_that_the_plan_counts():
    cells = methods.chosen_cells("methods")
    assert len(cells) == 16
    for name in ("width_48-full", "width_48-relora_repaired", "width_48-factorized", "width_48-fira"):
        cell = cells[name]
        total, trainable = count_parameters(cell)
        held = methods.held_bytes(methods.trained(cell, 2))
        assert (held["weights"], held["gradients"]) == (4 * total, 4 * trainable)
        assert 0 <= held["optimizer"] - 4 * count_optimizer_numbers(cell) < 1000, "single numbers, left out"


def test_a_methods_costs_include_its_warm_start(monkeypatch):
    chosen = {name: methods.chosen_cells("fair")[f"width_48-{name}"] for name in ("full", "relora_repaired", "lora")}
    monkeypatch.setattr(methods, "chosen_cells", lambda preset: chosen)
    monkeypatch.setattr(methods, "peak_kibibytes", lambda preset, name, phase: 1024 * (10 * (phase == 0) + len(name)))
    taken = {"full/0": 1.0, "relora_repaired/0": 1.0, "relora_repaired/1": 2.0, "lora/0": 3.0}
    timed = []
    monkeypatch.setattr(methods, "seconds_in_turns", lambda blocks, _: timed.extend(blocks) or taken)
    found = methods.table("fair", 1).set_index("method")
    full, repaired, lora = found.loc["full"], found.loc["relora_repaired"], found.loc["lora"]
    assert timed == list(taken)
    assert (found.ms_per_step * methods.STEPS / 1000).tolist() == pytest.approx([1.0, 0.2 * 1.0 + 0.8 * 2.0, 3.0])
    state = ["weights_MiB", "gradients_MiB", "optimizer_MiB"]
    assert repaired[state].tolist() == full[state].tolist() != lora[state].tolist()
    assert repaired.activations_MiB == full.activations_MiB and repaired.peak_MiB == 10 + len("relora_repaired")
    adapted = flops_per_token(chosen["relora_repaired"])
    assert repaired.flops_per_token == pytest.approx(0.2 * full.flops_per_token + 0.8 * adapted)
    assert adapted == lora.flops_per_token < full.flops_per_token


def test_the_phases_of_a_training_are_all_of_its_steps():
    cell = methods.chosen_cells("fair")["width_48-relora_repaired"]
    found = methods.phases(cell.model_copy(update={"method": cell.method.model_copy(update={"full_rank_from": 500})}))
    assert [(len(adapters(methods.trained(part.cell, 1).model)), part.steps) for part in found] == [(0, 220), (28, 380)]


def test_costs_stand_beside_the_differences_of_their_size():
    rows = pd.DataFrame({"size": ["a", "a", "b"], "method": ["full", "lora", "lora"], "ms_per_step": [1.0, 2.0, 3.0]})
    study = {"size": ["a", "a", "b"], "method": ["lora"] * 3, "measure": ["accuracy", *["held_out_loss"] * 2]}
    ends = {"difference": [9.0, 0.2, 2.0], "difference_low": [9.0, 0.1, 1.0], "difference_high": [9.0, 0.3, 3.0]}
    found = methods.with_differences(rows, pd.DataFrame(study | ends))
    assert found.difference[0] != found.difference[0] and list(found.difference[1:]) == [0.2, 2.0]
    assert list(found.difference_high[1:]) == [0.3, 3.0]


def test_kept_bytes_are_those_of_a_plain_sum(make_cell):
    """Full rank in float32, counted by hand: what each operation of a layer needs again, a token."""
    cell = make_cell("full")
    width, hidden, heads, groups, padded = 24, 48, 3, 1, 16
    norms = 2 * (width + 1)  # each its input and a number
    inputs = 2 * width  # of q, k, v together, of gate and up together
    attention = padded * (2 * heads + 2 * groups) + heads + width  # q, mixture, k, v, log-sum-exp, input of o
    by_hand = 4 * (norms + inputs + attention + 2 * hidden)
    a, b = (kept_bytes(cell, layers, 1, 64) for layers in (1, 2))
    assert (b - a) / 64 == pytest.approx(by_hand, rel=0.01)
