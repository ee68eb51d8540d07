"""Successive halving (Jamieson and Talwalkar 2016): train all candidates a little, the better ones longer."""

import math
from collections.abc import Mapping


def promoted(losses: Mapping[str, float], count: int) -> list[str]:
    """The ``count`` candidates of the lowest loss, best first; of equal ones the first by name.

    A loss that is not finite, of a run that diverged, comes behind every other.
    """
    order = sorted(losses, key=lambda name: (not math.isfinite(losses[name]), losses[name], name))
    return order[:count]
