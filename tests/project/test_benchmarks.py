"""The benchmarks' cases build, and what they compare is what they say."""

import sys
from pathlib import Path

import pandas as pd
import pytest
from relora_study.model.build import count_parameters
from relora_study.train.projected import count_optimizer_numbers

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import methods
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
    cells = methods.chosen_cells()
    assert len(cells) == 16
    for name in ("width_48-full", "width_48-relora_repaired", "width_48-factorized", "width_48-fira"):
        cell = cells[name]
        total, trainable = count_parameters(cell)
        held = methods.held_bytes(methods.trained(cell, 2))
        assert (held["weights"], held["gradients"]) == (4 * total, 4 * trainable)
        assert 0 <= held["optimizer"] - 4 * count_optimizer_numbers(cell, trainable) < 1000, "single numbers, left out"


def test_costs_stand_beside_the_gaps_of_their_size():
    rows = pd.DataFrame({"size": ["a", "a", "b"], "method": ["full", "lora", "lora"], "ms_per_step": [1.0, 2.0, 3.0]})
    named = {"size": ["a", "a", "b", "b"], "d_model": [8, 8, 16, 16], "method": ["lora"] * 4, "seed": [1, 2, 1, 2]}
    found = methods.with_gaps(rows, pd.DataFrame(named | {"gap": [0.1, 0.3, 1.0, 3.0]}))
    assert found.gap[0] != found.gap[0] and list(found.gap[1:]) == [0.2, 2.0]
