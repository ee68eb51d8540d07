"""Find where a learning rate falls and climbs again."""


def rate_restarts(rates: list[float]) -> list[tuple[int, int]]:
    """Return each restart of the rate as a range of resets that fit it, in finished steps.

    A restart is a fall to a rate from which it climbs. A reset fits it just before the first low step. Steps at rate 0
    move nothing, so a reset also fits between or just after them.
    """
    restarts = []
    for low in range(1, len(rates)):
        if rates[low] >= rates[low - 1]:
            continue
        end = low + 1
        while end < len(rates) and rates[end] == rates[low]:
            end += 1
        if end < len(rates) and rates[end] > rates[low]:
            restarts.append((low, end if rates[low] == 0.0 else low))
    return restarts


def nearest_restart(restarts: list[tuple[int, int]], step: int) -> int:
    """Return how many steps a reset after ``step`` steps comes after (or, below 0, before) the nearest restart."""
    distances = [step - min(max(step, first), last) for first, last in restarts]
    return min(distances, key=abs)
