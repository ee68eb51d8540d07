"""The benchmarks' cases build, and what they compare is what they say."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
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
