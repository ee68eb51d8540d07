"""The fit of a loss by parameters and tokens: made-up losses of a known law, as Hoffmann et al. published theirs."""

import numpy as np
import pytest
from relora_study.analysis.scaling import Law, fit

# Hoffmann et al. 2022, section 3.3: L(N, D) = 1.69 + 406.4 / N^0.34 + 410.7 / D^0.28
THEIRS = Law(np.log(1.69), np.log(406.4), np.log(410.7), 0.34, 0.28)
SIZES, LENGTHS = (each.ravel() for each in np.meshgrid(np.geomspace(2e5, 2e7, 5), np.geomspace(3e5, 3e8, 5)))


def test_their_law_is_theirs():
    assert THEIRS.at(70e9, 1.4e12) == pytest.approx(1.69 + 406.4 / 70e9**0.34 + 410.7 / 1.4e12**0.28)


def test_a_law_is_found_again_in_its_losses():
    found = fit(SIZES, LENGTHS, THEIRS.at(SIZES, LENGTHS))
    assert found.at(70e9, 1.4e12) == pytest.approx(THEIRS.at(70e9, 1.4e12), rel=0.01)
    assert (found.alpha, found.beta) == pytest.approx((0.34, 0.28), abs=0.01)


def test_one_wrong_loss_among_many_hardly_moves_it():
    losses = THEIRS.at(SIZES, LENGTHS)
    losses[7] *= 1.5
    assert fit(SIZES, LENGTHS, losses).at(1e8, 1e9) == pytest.approx(THEIRS.at(1e8, 1e9), rel=0.01)


def test_from_a_start_it_ends_where_the_grid_ends():
    losses = THEIRS.at(SIZES, LENGTHS) * np.exp(np.random.default_rng(0).normal(scale=1e-3, size=len(SIZES)))
    best = fit(SIZES, LENGTHS, losses)
    assert fit(SIZES, LENGTHS, losses, best).at(1e8, 1e9) == pytest.approx(best.at(1e8, 1e9), rel=1e-3)
