"""A whole cell's readings: each checkpoint by itself, against those before it, and against the last."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from ..cell_manifest import diverged_at
from ..config import Cell, read_section
from ..files import make_once, write_csv
from ..imports import code_version
from ..model.checkpoints import list_checkpoints, load_model, read_metadata
from ..schedule import due_steps
from .matrices import Matrices, stored_matrices
from .readings import AnyReading, Checkpoint, Values, dense, difference, few_tokens, overlaps, readings
from .representations import hidden_states, linear_cka

READING_COLUMNS = ["step", "component", "layer", "quantity", "metric", "value", "reason"]


@dataclass(frozen=True)
class Subject:
    """A cell's checkpoints by step, the first of step 0, and what all of them are read with.

    ``batch`` is int64 [sequences, context_length + 1], on the device that does the work. ``cycle_steps`` is the
    study's longest reset period, the same for every method. ``adapter_gradient_norms`` is by step, from the training.
    """

    cell: Cell
    folders: Mapping[int, Path]
    batch: Tensor
    dimensions: int
    cycle_steps: int
    adapter_gradient_norms: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))

    @cached_property
    def hashes(self) -> dict[int, str]:
        """The SHA-256 of every checkpoint's files, together, by step."""
        return {step: str(sorted(read_metadata(folder).sha256.items())) for step, folder in self.folders.items()}

    def stored(self, step: int) -> Matrices:
        """The effective weights of the checkpoint at ``step``."""
        return stored_matrices(self.folders[step], self.batch.device)

    @property
    def windows(self) -> dict[int, list[str]]:
        """The quantities that are read over a window, by its length: from one checkpoint to the next, and a cycle."""
        lengths: dict[int, list[str]] = {self.cell.train.checkpoint_every: ["net_update"]}
        lengths.setdefault(self.cycle_steps, []).append("cycle_update")
        return lengths

    def begins(self, step: int, length: int) -> list[int]:
        """Where the window of ``length`` steps that ends at ``step`` begins, and the one before it.

        None off the grid, or where no checkpoint was taken. Windows end at multiples of their length, so that all
        methods are read over the same steps.
        """
        found = [] if step % length else [step - length, step - 2 * length]
        return list(takewhile(self.folders.__contains__, found))

    def key(self, step: int) -> Iterator[str]:
        """Hashes of all that the readings of ``step`` come from, code included."""
        yield code_version("dynamics.cell")
        yield repr((self.cell.method, self.dimensions, self.windows, self.batch.tolist()))
        compared = [at for length in self.windows for at in self.begins(step, length)]
        yield from (self.hashes[at] for at in (step, 0, *compared))


def open_subject(cell_dir: Path, batch: Tensor, dimensions: int, cycle_steps: int) -> Subject:
    """The cell in ``cell_dir``. Raises :class:`UserError` where one of its checkpoints is missing or damaged."""
    cell = read_section(Cell, cell_dir / "config.yaml")
    folders = list_checkpoints(cell_dir, due_steps(cell, diverged_at(cell_dir)))
    norms = pd.read_csv(cell_dir / "log.csv", index_col="step").adapter_gradient_norm
    return Subject(cell, folders, batch, dimensions, cycle_steps, norms)


def read_step(subject: Subject, step: int) -> Iterator[AnyReading]:
    """Every reading of the checkpoint at ``step`` but those that need a later one."""
    checkpoint = Checkpoint.read(subject.folders[step], subject.batch, subject.cell.method)
    yield from readings(checkpoint)
    effective = checkpoint.effective
    del checkpoint
    yield from movements(subject, step, effective)


def movements(subject: Subject, step: int, now: Matrices) -> Iterator[AnyReading]:
    """How the effective weights ``now`` moved: from step 0, and over each window that ends here."""
    if step:
        yield from dense("cumulative_update", difference(now, subject.stored(0)))
    for length, quantities in subject.windows.items():
        for reading in window(subject, now, subject.begins(step, length)):
            yield from (replace(reading, quantity=quantity) for quantity in quantities)


def window(subject: Subject, now: Matrices, begins: list[int]) -> Iterator[AnyReading]:
    """The update since the first of ``begins``, and its overlap with the update from the second to the first."""
    if begins:
        moved = difference(now, subject.stored(begins[0]))
        yield from dense("", moved)
        if len(begins) > 1:
            before = difference(subject.stored(begins[0]), subject.stored(begins[1]))
            yield from overlaps("", moved, before, subject.dimensions)


def gradients_of_cycles(subject: Subject) -> Iterator[tuple[int, AnyReading]]:
    """The norm of the adapters' gradient in each whole cycle, mean and largest over its steps: zero means dead."""
    norms, length = subject.adapter_gradient_norms, subject.cycle_steps
    for end in range(length, max(subject.folders) + 1, length) if subject.cell.method.rank else ():
        cycle = norms.loc[end - length + 1 : end]
        for metric, value in (("mean_norm", cycle.mean()), ("largest_norm", cycle.max())):
            yield end, Values("adapter_gradients", "model", metric, torch.tensor(value, dtype=torch.float64))


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
    return pd.DataFrame([line for step, reading in found for line in reading.rows(step)], columns=READING_COLUMNS)


def cell_table(subject: Subject, kept: Path) -> pd.DataFrame:
    """The cell's dynamics.csv: one row a step, component, layer, quantity and metric.

    Each checkpoint's own table is kept in ``kept``, so that an interrupted or longer run costs only what is new.
    """
    tables = []
    for step in tqdm(subject.folders, desc=f"reading {subject.cell.name}", disable=None):

        def make(place: Path, step: int = step) -> None:
            write_csv(place, tabulate((step, reading) for reading in read_step(subject, step)))

        place = make_once(kept, subject.folders[step].name, subject.key(step), make)
        tables.append(pd.read_csv(place, keep_default_na=False, na_values={"value": [""]}))
    tables.append(tabulate([*similarities(subject), *gradients_of_cycles(subject)]))
    return pd.concat(tables).sort_values("step", kind="stable", ignore_index=True)
