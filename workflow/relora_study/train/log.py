"""Write the training log, one row a step. A run that goes on from a state drops the rows after the state's step."""

import csv
import math
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from ..storage.files import errors_naming, sync, write_text
from .divergence import Diverged
from .events import Events


class Column(NamedTuple):
    """A column of log.csv."""

    name: str
    definition: str
    unit: str = "–"


COLUMNS = [  # later versions' columns come last, because older rows lack them
    Column("step", "the optimizer step, from 1", "steps"),
    Column("tokens", "the tokens seen up to it", "tokens"),
    Column("loss", "mean cross-entropy of the step's batch", "nats a token"),
    Column("learning_rate", "of the step, which `rate_ratios` multiplies"),
    Column("gradient_norm", "of all gradients, before clipping", "nats a token, over the parameters'"),
    Column(
        "adapter_gradient_norm", "the same, of the adapters; empty without adapters", "nats a token, over A's and B's"
    ),
    Column("reset", "1 if a reset followed the step"),
    Column("update_norm", "of the optimizer's change to the decoder's layers: to adapters, or to whole weights"),
    Column(
        "clipped_gradient_norm",
        "of all gradients after clipping; empty without `gradient_clipping`, and in logs of 1.0 and before",
        "nats a token, over the parameters'",
    ),
]
LOG_COLUMNS = [column.name for column in COLUMNS]
TIMING_COLUMNS = ["step", "seconds", "tokens_per_second"]

LogRow = dict[str, Any]  # column -> a number, None, or a 0-dimensional tensor that a GPU may still compute


class Log:
    """A CSV file with one row a step, in step order."""

    def __init__(self, path: Path, columns: list[str], after: int) -> None:
        """Open ``path`` for rows after step ``after``, and drop rows that a killed run wrote beyond that step."""
        kept = rows_up_to(path, after)
        write_text(path, "\n".join([",".join(columns), *kept]) + "\n")
        self._path = path
        self._stream = path.open("a", encoding="utf-8", newline="")
        self._writer = csv.DictWriter(self._stream, columns, lineterminator="\n")

    def append(self, rows: list[LogRow]) -> None:
        """Write ``rows`` and flush them."""
        with errors_naming(self._path):
            for row in rows:
                text = {key: f"{value:.9g}" if isinstance(value, float) else value for key, value in row.items()}
                self._writer.writerow(text)
            self._stream.flush()

    def sync(self) -> None:
        """Wait until the rows are on the disk, so that in a power cut no state outlives the rows of its steps."""
        sync(self._path)

    def close(self) -> None:
        """Close the file. Rows that a full disk refused are lost; `append` has raised an error for them."""
        with suppress(OSError):
            self._stream.close()


class Recorder:
    """Writes log.csv and timing.csv. On a GPU it writes every few steps, so that they share one wait for the device."""

    def __init__(
        self, cell_dir: Path | None, done: int, tokens_a_step: int, every: int, tensorboard: bool = False
    ) -> None:
        """Go on after step ``done``, and write every ``every`` steps; without a ``cell_dir``, write no files.

        With ``tensorboard``, the columns of log.csv become event files, too.
        """
        files = (("log.csv", LOG_COLUMNS), ("timing.csv", TIMING_COLUMNS))
        self._logs: list[Log | Events] = []
        if cell_dir:
            self._logs += [Log(cell_dir / name, columns, done) for name, columns in files]
            self._logs += [Events(cell_dir, done)] if tensorboard else []
        self._cell_dir = cell_dir
        self._tokens, self._every, self._rows = tokens_a_step, every, list[LogRow]()
        self._since = time.perf_counter()

    def add(self, row: LogRow) -> None:
        """Take the row of a step, and write the rows held back if they are enough."""
        self._rows.append(row)
        if len(self._rows) >= self._every:
            self.flush()

    def flush(self) -> None:
        """Write the rows held back. Raises :class:`Diverged` at the first loss or gradient that is not finite.

        The row of that step is the last row written.
        """
        if not self._rows:
            return
        rows, self._rows = _numbers(self._rows), []
        seconds, self._since = time.perf_counter() - self._since, time.perf_counter()
        each = seconds / len(rows)
        rows = rows[: next((count for count, row in enumerate(rows, 1) if _not_finite(row)), None)]
        timing = [{"step": row["step"], "seconds": each, "tokens_per_second": self._tokens / each} for row in rows]
        for log, new in zip(self._logs, (rows, timing, rows), strict=False):
            log.append(new)
        if reason := _not_finite(rows[-1]):
            raise Diverged(reason, rows[-1]["step"], self._cell_dir)

    def sync(self) -> None:
        """Write the rows held back, and wait until they are on the disk."""
        self.flush()
        for log in self._logs:
            log.sync()

    def __enter__(self) -> Self:
        """Return the recorder, for a ``with`` block that writes the last rows and closes the files."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the last rows, unless an error ended the block, and close the files."""
        if error is None:
            self.flush()
        for log in self._logs:
            log.close()


def _numbers(rows: list[LogRow]) -> list[LogRow]:
    """Replace the tensors in ``rows`` by floats, fetched from the device all at once."""
    places = [(row, key) for row in rows for key, value in row.items() if isinstance(value, Tensor)]
    for (row, key), value in zip(places, torch.stack([row[key] for row, key in places]).tolist(), strict=True):
        row[key] = value
    return rows


def _not_finite(row: LogRow) -> str:
    """Name the number of ``row`` that is not finite, or return an empty text if all are."""
    return next((f"the {key} is {row[key]}" for key in ("loss", "gradient_norm") if not math.isfinite(row[key])), "")


def rows_up_to(path: Path, step: int) -> list[str]:
    """Read the rows of steps 1 to ``step`` from the log in ``path``, up to the first gap.

    A last line without a line break was cut off, so it is dropped, whatever number it begins with.
    """
    lines = path.read_text(encoding="utf-8").split("\n")[1:-1] if path.exists() else []
    rows: list[str] = []
    for line in lines:
        if len(rows) < step and line.startswith(f"{len(rows) + 1},"):
            rows.append(line)
    return rows


def document() -> str:
    """Return the table of all columns, in Markdown."""
    rows = [f"| `{column.name}` | {column.definition} | {column.unit} |" for column in COLUMNS]
    return "\n".join(["| column | content | unit |", "|---|---|---|", *rows])
