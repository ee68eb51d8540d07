"""A whole cell's readings: each checkpoint by itself, against those before it, and against the last."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from torch import Tensor
from tqdm import tqdm

from ..config import Cell, read_section
from ..files import code_version, once, sha256, write_csv
from ..train.checkpoints import due_steps, list_checkpoints, load_model
from .matrices import Matrices, stored_matrices
from .readings import AnyReading, Checkpoint, Values, dense, difference, few_tokens, overlaps, readings
from .representations import hidden_states, linear_cka

COLUMNS = ["step", "component", "layer", "quantity", "metric", "value", "reason"]


@dataclass(frozen=True)
class Subject:
    """A cell's checkpoints by step, the first of step 0, and what all of them are read with.

    ``batch`` is int64 [sequences, context_length + 1], on the device that does the work.
    """

    cell: Cell
    folders: Mapping[int, Path]
    batch: Tensor
    dimensions: int

    @cached_property
    def hashes(self) -> dict[Path, str]:
        """The SHA-256 of every checkpoint's files, together."""
        files = {folder: sorted(folder.glob("*.safetensors")) for folder in self.folders.values()}
        return {folder: "".join(map(sha256, found)) for folder, found in files.items()}

    def windows(self, step: int) -> list[int]:
        """The steps at which the window that ends at ``step`` and the one before it begin; none between multiples."""
        every = self.cell.train.checkpoint_every
        regular = [other for other in self.folders if other < step and other % every == 0]
        return [] if step % every else sorted(regular, reverse=True)[:2]

    def key(self, step: int) -> Iterator[str]:
        """Hashes of all that the readings of ``step`` come from, code included."""
        yield code_version(__file__)
        yield repr((self.cell.method, self.dimensions, self.batch.tolist()))
        yield from (self.hashes[self.folders[at]] for at in (step, 0, *self.windows(step)))


def open_subject(cell_dir: Path, batch: Tensor, dimensions: int) -> Subject:
    """The cell in ``cell_dir``. Raises :class:`UserError` where one of its checkpoints is missing or damaged."""
    cell = read_section(Cell, cell_dir / "config.yaml")
    return Subject(cell, list_checkpoints(cell_dir, due_steps(cell.train)), batch, dimensions)


def read_step(subject: Subject, step: int) -> Iterator[AnyReading]:
    """Every reading of the checkpoint at ``step`` but those that need a later one."""
    checkpoint = Checkpoint.read(subject.folders[step], subject.batch, subject.cell.method)
    yield from readings(checkpoint)
    effective = checkpoint.effective
    del checkpoint
    yield from movements(subject, step, effective)


def movements(subject: Subject, step: int, now: Matrices) -> Iterator[AnyReading]:
    """How the effective weights ``now`` moved: from step 0, over the window that ends here, and as the one before did.

    `net_update` is read from each regular checkpoint to the next, `overlap` against the window before.
    """

    def at(other: int) -> Matrices:
        return stored_matrices(subject.folders[other], subject.batch.device)

    if step:
        yield from dense("cumulative_update", difference(now, at(0)))
    begins = subject.windows(step)
    if begins:
        moved = difference(now, at(begins[0]))
        yield from dense("net_update", moved)
        if len(begins) > 1:
            yield from overlaps(moved, difference(at(begins[0]), at(begins[1])), subject.dimensions)


def similarities(subject: Subject) -> Iterator[tuple[int, AnyReading]]:
    """Linear CKA of every checkpoint's hidden states with the last one's, by step."""
    tokens = few_tokens(subject.batch)

    def states(step: int) -> Tensor:
        return hidden_states(load_model(subject.folders[step], tokens.device), tokens)

    last = states(max(subject.folders))
    for step in subject.folders:
        yield step, Values("hidden_states", "layer_output", "cka_with_last", linear_cka(states(step), last))


def tabulate(found: Iterable[tuple[int, AnyReading]]) -> pd.DataFrame:
    """Readings by step as one table."""
    return pd.DataFrame([line for step, reading in found for line in reading.rows(step)], columns=COLUMNS)


def cell_table(subject: Subject, kept: Path) -> pd.DataFrame:
    """The cell's dynamics.csv: one row a step, component, layer, quantity and metric.

    Each checkpoint's own table is kept in ``kept``, so that an interrupted or longer run costs only what is new.
    """
    tables = []
    for step in tqdm(subject.folders, desc=f"reading {subject.cell.name}", disable=None):

        def make(place: Path, step: int = step) -> None:
            write_csv(place, tabulate((step, reading) for reading in read_step(subject, step)))

        place = once(kept, subject.folders[step].name, subject.key(step), make)
        tables.append(pd.read_csv(place, keep_default_na=False, na_values={"value": [""]}))
    tables.append(tabulate(similarities(subject)))
    return pd.concat(tables).sort_values("step", kind="stable", ignore_index=True)
