"""Find where a learning rate falls and climbs again."""

from itertools import takewhile

IDLE_SHARE = 1e-3  # of the highest rate: such steps move next to nothing, and some schedules restart there, not at 0


def rate_restarts(rates: list[float]) -> list[tuple[int, int]]:
    """Return each restart of the rate as the first and the last reset that fit it, in finished steps.

    A restart is a fall to a rate from which it climbs. A reset fits it just before the first low step. Idle steps move
    next to nothing, so a reset also fits between or just after them.
    """
    restarts = []
    for low in range(1, len(rates)):
        next_other = next((rate for rate in rates[low:] if rate != rates[low]), 0.0)
        if rates[low - 1] > rates[low] < next_other:
            idle = takewhile(lambda rate: rate <= IDLE_SHARE * max(rates), rates[low:])
            restarts.append((low, low + len(list(idle))))
    return restarts


def nearest_restart(restarts: list[tuple[int, int]], step: int) -> int:
    """Return how many steps a reset after ``step`` steps comes after (or, below 0, before) the nearest restart."""
    distances = [step - min(max(step, first), last) for first, last in restarts]
    return min(distances, key=abs)
