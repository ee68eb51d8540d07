"""Successive halving: who goes on, and what a search costs."""

import math

import pytest
from pydantic import ValidationError
from relora_study.config import Tuning
from relora_study.search import promoted


def tuning(**changes) -> Tuning:
    rates = {"grid": {"learning_rate": [1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3, 7e-3, 8e-3]}}
    return Tuning(**{"space": rates, "rungs": [100, 200, 400], **changes})


def test_the_better_half_goes_on_best_first():
    assert promoted({"a": 3.0, "b": 1.0, "c": 2.0, "d": 4.0}, 2) == ["b", "c"]


def test_equal_losses_are_told_apart_by_name():
    assert promoted({"b": 1.0, "c": 1.0, "a": 1.0}, 2) == ["a", "b"]


def test_a_diverged_run_comes_last():
    losses = {"a": math.nan, "b": 9.0, "c": math.inf, "d": 1.0}
    assert promoted(losses, 2) == ["d", "b"] and promoted(losses, 4)[2:] == ["a", "c"]


def test_half_of_the_candidates_go_on_from_each_rung():
    found = tuning()
    assert [found.survivors(rung) for rung in range(3)] == [8, 4, 2]


def test_at_least_one_goes_on():
    assert tuning(keep=0.01).survivors(2) == 1


WRONG = [
    ({"rungs": []}, "at least 1 item"),
    ({"rungs": [200, 100]}, "must rise"),
    ({"keep": 0.0}, "greater than 0"),
    ({"spaces": {"relora": {"grid": {"rank": [1, 2]}}}}, "as many candidates as the others.*'space': 8, 'relora': 2"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_a_search_that_is_not_fair_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        tuning(**changes)
