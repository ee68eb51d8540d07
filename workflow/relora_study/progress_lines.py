"""Print the progress of long work, a line every 20 seconds on stderr, readable in a job's log, too."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 20
KNOWN_TOTAL = "{desc}: {n_fmt} of {total_fmt}, {rate_fmt}, {remaining} left"
UNKNOWN_TOTAL = "{desc}: {n_fmt}, {rate_fmt}"


def progress(
    items: Iterable[Any] | None,
    total: int | None,
    description: str,
    unit: str,
    line: str | None = None,
    **options: Any,
) -> tqdm:
    """Yield ``items`` and print progress now and then; ``items`` None is for work that calls ``update``.

    ``line`` replaces the usual line. It and ``options`` are tqdm's ``bar_format`` and other arguments.
    """
    return tqdm(
        items,
        total=total,
        desc=description,
        unit=unit,
        mininterval=SECONDS_BETWEEN_LINES,
        miniters=1,
        delay=SECONDS_BETWEEN_LINES,
        bar_format=(line or (KNOWN_TOTAL if total else UNKNOWN_TOTAL)) + "\n",
        **options,
    )
