"""A training log: one row a step, flushed, and cut back to the state that a run continues from."""

import csv
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..files import write_text


class Log:
    """A CSV file that rows are appended to, one a step, in step order."""

    def __init__(self, path: Path, columns: list[str], after: int) -> None:
        """Open ``path`` for the rows behind step ``after``; later ones, of a run that was cut off, are dropped."""
        kept = _rows_up_to(path, after) if after else []
        write_text(path, "\n".join([",".join(columns), *kept]) + "\n")
        self.path = path
        self._stream = path.open("a", encoding="utf-8", newline="")
        self._writer = csv.DictWriter(self._stream, columns, lineterminator="\n")

    def append(self, row: dict[str, Any]) -> None:
        """Write one row and flush it."""
        self._writer.writerow(
            {key: f"{value:.9g}" if isinstance(value, float) else value for key, value in row.items()}
        )
        self._stream.flush()

    def __enter__(self) -> Self:
        """Use the log in a ``with`` block, which closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._stream.close()


def _rows_up_to(path: Path, step: int) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()[1:] if path.exists() else []
    return [line for line in lines if line.split(",")[0].isdigit() and int(line.split(",")[0]) <= step]
