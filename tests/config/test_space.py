"""What an experiment tries: grids, points and Sobol samples."""

import itertools

import numpy as np
import pytest
from pydantic import ValidationError
from relora_study.config import Range, Space
from scipy.stats import qmc


def test_a_grid_is_every_combination_in_the_order_written():
    grid = {"rank": [4, 8], "learning_rate": [1e-3, 3e-3, 1e-2]}
    expected = [dict(rank=rank, learning_rate=rate) for rank, rate in itertools.product(*grid.values())]
    assert Space(grid=grid).candidates() == expected


def test_a_point_written_twice_is_tried_once():
    assert Space(points=[{"rank": 4}, {"rank": 8}, {"rank": 4}]).candidates() == [{"rank": 4}, {"rank": 8}]


def sobol(size: int, seed: int = 0) -> Space:
    ranges = {
        "learning_rate": Range(low=1e-4, high=1e-1, scale="log"),
        "reset_period": Range(low=20, high=200, integer=True),
    }
    return Space(sobol=ranges, size=size, sobol_seed=seed)


def test_a_sobol_sample_is_scipys_on_the_ranges():
    shares = qmc.Sobol(d=2, scramble=True, rng=7).random_base2(4)
    found = sobol(16, seed=7).candidates()
    rates = 10 ** (-4 + 3 * shares[:, 0])
    assert [point["learning_rate"] for point in found] == [float(f"{rate:.3g}") for rate in rates]
    assert [point["reset_period"] for point in found] == np.round(20 + 180 * shares[:, 1]).astype(int).tolist()


@pytest.mark.parametrize("more", [6, 8, 13, 32])
def test_a_larger_sample_keeps_the_smaller_ones_points(more):
    assert sobol(more).candidates()[:5] == sobol(5).candidates()


def test_another_seed_is_another_sample():
    assert sobol(8, seed=1).candidates() != sobol(8, seed=2).candidates()


WRONG = [
    ({}, "exactly one of grid, points and sobol"),
    ({"grid": {"rank": [1]}, "points": [{"rank": 1}]}, "exactly one"),
    ({"grid": {"rank": [1]}, "size": 3}, "size, the number of points, goes with sobol"),
    ({"sobol": {"rank": {"low": 1, "high": 2}}}, "size, the number of points, goes with sobol"),
    ({"points": [{"rank": 1}, {"alpha": 2}]}, "all points must set the keys of the first"),
    ({"sobol": {"rank": {"low": 2, "high": 1}}, "size": 2}, "low 2 must be below high 1"),
    ({"sobol": {"rank": {"low": 0, "high": 1, "scale": "log"}}, "size": 2}, "low 0 must be above 0 on a log scale"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_a_space_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Space(**settings)
