"""Take all readings of a cell: each checkpoint alone, against earlier checkpoints, and against the last one."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from ..config import Cell, read_section
from ..config.schedule import due_steps
from ..model.checkpoints import list_checkpoints, load_model, read_metadata
from ..storage.contracts import diverged_at
from ..storage.files import make_once, write_csv
from ..storage.hashes import code_version
from .matrices import Matrices, stored_matrices
from .passes import layer_states, linear_cka
from .readings import AnyReading, Checkpoint, Values, dense, difference, few_tokens, overlaps, readings
from .steps import intruders

READING_COLUMNS = ["step", "component", "layer", "quantity", "metric", "value", "reason"]


@dataclass(frozen=True)
class Subject:
    """A cell with its checkpoints' folders by step, and the settings of its readings.

    ``batch`` is the fixed batch, int64 [sequences, context_length + 1], on the device that does the work.
    ``dimensions`` counts the leading directions whose overlap is read. ``cycle_steps`` is the study's longest reset
    period, one number for all methods. ``adapter_gradient_norms`` comes from the training log, by step.
    """

    cell: Cell
    folders: Mapping[int, Path]
    batch: Tensor
    dimensions: int
    cycle_steps: int
    adapter_gradient_norms: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))

    @cached_property
    def hashes(self) -> dict[int, str]:
        """Return the hashes of all files of each checkpoint, as one text, by step."""
        return {step: str(sorted(read_metadata(folder).sha256.items())) for step, folder in self.folders.items()}

    def stored(self, step: int) -> Matrices:
        """Read the effective weights of the checkpoint at ``step``."""
        return stored_matrices(self.folders[step], self.batch.device)

    @property
    def windows(self) -> dict[int, list[str]]:
        """Return the names of the updates that are read over a window, by the window's length in steps.

        A net update spans the interval between checkpoints, and a cycle update spans a cycle.
        """
        lengths: dict[int, list[str]] = {self.cell.train.checkpoint_every: ["net_update"]}
        lengths.setdefault(self.cycle_steps, []).append("cycle_update")
        return lengths

    def begins(self, step: int, length: int) -> list[int]:
        """List the first steps of the window of ``length`` steps that ends at ``step``, and of the window before it.

        Windows end at multiples of their length, so that every method is read over equal steps. At other steps, the
        list is empty. It ends before the first step without a checkpoint.
        """
        begins = [] if step % length else [step - length, step - 2 * length]
        return list(takewhile(self.folders.__contains__, begins))

    def key(self, step: int) -> Iterator[str]:
        """Yield hashes of everything that decides the readings of ``step``: code, settings and checkpoints."""
        yield code_version("dynamics.cell")
        yield repr((self.cell.method, self.dimensions, self.windows, self.batch.tolist()))
        compared = [at for length in self.windows for at in self.begins(step, length)]
        yield from (self.hashes[at] for at in (step, 0, *compared))


def open_subject(cell_dir: Path, batch: Tensor, dimensions: int, cycle_steps: int) -> Subject:
    """Open the cell in ``cell_dir``. Raises :class:`UserError` if one of its checkpoints is missing or damaged."""
    cell = read_section(Cell, cell_dir / "config.yaml")
    folders = list_checkpoints(cell_dir, due_steps(cell, diverged_at(cell_dir)))
    norms = pd.read_csv(cell_dir / "log.csv", index_col="step").adapter_gradient_norm
    return Subject(cell, folders, batch, dimensions, cycle_steps, norms)


def read_step(subject: Subject, step: int) -> Iterator[AnyReading]:
    """Take every reading of the checkpoint at ``step`` that needs no later checkpoint."""
    checkpoint = Checkpoint.read(subject.folders[step], subject.batch, subject.cell.method)
    yield from readings(checkpoint)
    effective = checkpoint.effective
    del checkpoint
    yield from movements(subject, step, effective)


def movements(subject: Subject, step: int, now: Matrices) -> Iterator[AnyReading]:
    """Read how the effective weights ``now`` have moved: since step 0, and over each window that ends at ``step``."""
    if step:
        start = subject.stored(0)
        yield from dense("cumulative_update", difference(now, start))
        for component, matrix in now.items():
            near = intruders(matrix, start[component], subject.dimensions)
            yield Values("cumulative_update", component, "intruders", near)
    for length, quantities in subject.windows.items():
        for reading in window(subject, now, subject.begins(step, length)):
            yield from (replace(reading, quantity=quantity) for quantity in quantities)


def window(subject: Subject, now: Matrices, begins: list[int]) -> Iterator[AnyReading]:
    """Read the update since the first of ``begins``, and its overlap with the update from the second to the first."""
    if begins:
        moved = difference(now, subject.stored(begins[0]))
        yield from dense("", moved)
        if len(begins) > 1:
            before = difference(subject.stored(begins[0]), subject.stored(begins[1]))
            yield from overlaps("", moved, before, subject.dimensions)


def gradients_of_cycles(subject: Subject) -> Iterator[tuple[int, AnyReading]]:
    """Read the mean and largest norm of the adapters' gradient over each whole cycle; zero means dead adapters."""
    norms, length = subject.adapter_gradient_norms, subject.cycle_steps
    for end in range(length, max(subject.folders) + 1, length) if subject.cell.method.rank else ():
        cycle = norms.loc[end - length + 1 : end]
        for metric, value in (("mean_norm", cycle.mean()), ("largest_norm", cycle.max())):
            yield end, Values("adapter_gradients", "model", metric, torch.tensor(value, dtype=torch.float64))


def similarities(subject: Subject) -> Iterator[tuple[int, AnyReading]]:
    """Read the linear CKA of the hidden states of each checkpoint and of the last checkpoint, by step."""
    tokens = few_tokens(subject.batch)

    def states(step: int) -> Tensor:
        return layer_states(load_model(subject.folders[step], tokens.device), tokens)

    last = states(max(subject.folders))
    for step in subject.folders:
        yield step, Values("hidden_states", "layer_output", "cka_with_last", linear_cka(states(step), last))


def tabulate(readings_by_step: Iterable[tuple[int, AnyReading]]) -> pd.DataFrame:
    """Return readings, each with its step, as one long table."""
    return pd.DataFrame(
        [row for step, reading in readings_by_step for row in reading.rows(step)], columns=READING_COLUMNS
    )


def cell_table(subject: Subject, kept: Path) -> pd.DataFrame:
    """Return the table of the cell's dynamics.csv, one row for each step, component, layer, quantity and metric.

    The folder ``kept`` keeps a table for each checkpoint, so that an interrupted or longer run takes only new readings.
    Snakemake would rerun the whole job.
    """
    tables = []
    for step in tqdm(subject.folders, desc=f"reading {subject.cell.name}", disable=None):

        def make(place: Path, step: int = step) -> None:
            write_csv(place, tabulate((step, reading) for reading in read_step(subject, step)))

        place = make_once(kept, subject.folders[step].name, subject.key(step), make)
        tables.append(pd.read_csv(place, keep_default_na=False, na_values={"value": [""]}))
    tables.append(tabulate([*similarities(subject), *gradients_of_cycles(subject)]))
    return pd.concat(tables).sort_values("step", kind="stable", ignore_index=True)
