"""The loss by parameters N and tokens D: L = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, section 3.3)."""

from typing import NamedTuple

import numpy as np

from ..config.measuring import LEVEL
from .effects import Numbers

RESAMPLES = 200
DELTA = 1e-3  # of Huber's loss on the logarithm of L, as theirs
EXPONENTS = (0.0, 2.0)


class Gap(NamedTuple):
    """A difference of two losses (nats/token) with its interval."""

    value: float
    low: float
    high: float


class Law(NamedTuple):
    """The logarithms of E, A and B, and the exponents."""

    e: float
    a: float
    b: float
    alpha: float
    beta: float

    def at(self, parameters: Numbers | float, tokens: Numbers | float) -> Numbers:
        """The loss (nats/token) of models of ``parameters`` that read ``tokens``."""
        return np.exp(_logarithm(np.array(self), np.log(parameters), np.log(tokens)))


def fit(parameters: Numbers, tokens: Numbers, losses: Numbers, start: Law | None = None) -> Law:
    """The law of least Huber loss on the logarithm of ``losses``, from ``start`` or else from the best of a grid."""
    from scipy.optimize import least_squares  # longer than the rest of a figure

    sizes, lengths, target = np.log(parameters), np.log(tokens), np.log(losses)
    bounds = np.array([(-5, 5), (-5, 40), (-5, 40), EXPONENTS, EXPONENTS], dtype=float).T
    found = [
        least_squares(
            lambda law: _logarithm(law, sizes, lengths) - target, one, bounds=bounds, loss="huber", f_scale=DELTA
        )
        for one in ([start] if start else _grid())
    ]
    return Law(*min(found, key=lambda result: result.cost).x)


def expected_gap(parameters: Numbers, tokens: Numbers, losses: Numbers, at: tuple[float, float]) -> Gap:
    """The gap that laws of both columns of ``losses`` expect ``at`` parameters and tokens, second less first.

    The 95 % interval resamples cells, both losses of each together, and holds nothing of what the law itself may miss.
    """
    rng, laws = np.random.default_rng(0), [fit(parameters, tokens, one) for one in losses.T]
    gaps = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(len(losses), size=len(losses))
        drawn = zip(losses[chosen].T, laws, strict=True)
        first, second = (fit(parameters[chosen], tokens[chosen], one, law).at(*at) for one, law in drawn)
        gaps.append(second - first)
    low, high = np.quantile(gaps, [LEVEL / 2, 1 - LEVEL / 2])
    return Gap(float(laws[1].at(*at) - laws[0].at(*at)), float(low), float(high))


def _grid() -> list[Law]:
    return [Law(e, 5.0, 5.0, alpha, beta) for e in (-1.0, 0.5, 1.0) for alpha in (0.2, 0.6) for beta in (0.2, 0.6)]


def _logarithm(law: Numbers, sizes: Numbers | float, lengths: Numbers | float) -> Numbers:
    """The logarithm of the loss by logarithms of parameters and tokens, without overflow."""
    e, a, b, alpha, beta = law
    without_tokens = np.logaddexp(e, a - alpha * np.asarray(sizes))
    whole: Numbers = np.logaddexp(without_tokens, b - beta * np.asarray(lengths))
    return whole
