"""Successive halving (Jamieson and Talwalkar 2016): train all candidates a little, the better ones longer."""

import math
from collections.abc import Mapping

from pydantic import model_validator

from ..config import NonNegativeInt, PositiveInt, Section, Share
from .space import Space


class Tuning(Section):
    """How each size and method finds its own settings, all on equal budgets.

    ``rungs`` are the optimizer steps after which the candidates are compared; the share ``keep`` of them, at least
    one, goes on to the next. ``spaces`` replaces ``space`` for the methods that it names.
    """

    space: Space
    spaces: dict[str, Space] = {}
    rungs: list[PositiveInt]
    keep: Share = 0.5
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _equal_budgets(self) -> "Tuning":
        if not self.rungs or self.rungs != sorted(set(self.rungs)):
            raise ValueError(f"rungs {self.rungs} must rise")
        if not 0 < self.keep < 1:
            raise ValueError(f"keep {self.keep:g} must lie between 0 and 1")
        counts = {name: len(space.candidates()) for name, space in {"space": self.space, **self.spaces}.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"every method needs as many candidates as the others: {counts}")
        return self

    def space_of(self, method: str) -> Space:
        """What is tried for ``method``."""
        return self.spaces.get(method, self.space)

    def survivors(self, rung: int) -> int:
        """How many candidates train up to ``rung``, counted from 0."""
        alive = len(self.space.candidates())
        for _ in range(rung):
            alive = max(1, math.ceil(alive * self.keep))
        return alive

    def steps_in_all(self) -> int:
        """The optimizer steps that one search takes: each candidate's rungs, a promoted one's counted once."""
        before = [0, *self.rungs]
        return sum(self.survivors(rung) * (steps - before[rung]) for rung, steps in enumerate(self.rungs))


def promoted(losses: Mapping[str, float], count: int) -> list[str]:
    """The ``count`` candidates of the lowest loss, best first; of equal ones the first by name.

    A loss that is not finite, of a run that diverged, comes behind every other.
    """
    order = sorted(losses, key=lambda name: (not math.isfinite(losses[name]), losses[name], name))
    return order[:count]
