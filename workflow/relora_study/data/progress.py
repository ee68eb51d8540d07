"""Print the progress of long work, a line every 20 seconds on stderr, readable in a job's log, too."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 20


def progress(items: Iterable[Any] | None, total: int | None, description: str, unit: str, **options: Any) -> tqdm:
    """Yield ``items`` and print progress now and then; ``items`` None is for work that calls ``update``."""
    return tqdm(
        items,
        total=total,
        desc=description,
        unit=unit,
        mininterval=SECONDS_BETWEEN_LINES,
        miniters=1,
        delay=SECONDS_BETWEEN_LINES,
        bar_format="{desc}: {n_fmt} of {total_fmt}, {rate_fmt}, {remaining} left\n"
        if total
        else "{desc}: {n_fmt}, {rate_fmt}\n",
        **options,
    )
