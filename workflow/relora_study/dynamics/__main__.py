"""`python -m relora_study.dynamics cell`: take the readings of every checkpoint of a cell."""

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from ..config import Cell, read_section
from ..config.settings import DynamicsSettings
from ..data.tokens import held_out_batch
from ..errors import command_line
from ..model.device import chosen_device, release_freed_memory
from ..storage.files import write_csv
from .against import against
from .cell import cell_table, open_subject, tabulate

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Settings = Annotated[Path, typer.Option(help="The settings of spectra, settings/dynamics.yaml.")]
CellFolder = Annotated[Path, typer.Option("--cell", help="Folder of the trained cell.")]
DataFolder = Annotated[Path, typer.Option("--data", help="Folder of the data stage, for the fixed held-out batch.")]
Output = Annotated[Path, typer.Option(help="Where the table is written, as CSV.")]
Threads = Annotated[int, typer.Option(min=1, help="Processor threads.")]


@app.callback()
def dynamics() -> None:
    """Take spectra of weights, gradients and updates."""


@app.command("cell")
def read_cell(settings: Settings, cell_dir: CellFolder, data: DataFolder, output: Output, threads: Threads = 1) -> None:
    """Take the readings of every checkpoint of CELL, and write them to OUTPUT as one long table."""
    chosen, batch = _begin(settings, cell_dir, data, threads)
    subject = open_subject(cell_dir, batch, chosen.subspace_dimensions, chosen.cycle_steps)
    write_csv(output, cell_table(subject, cell_dir / "dynamics"))


@app.command("against")
def read_against(
    settings: Settings,
    cell_dir: CellFolder,
    reference: Annotated[Path, typer.Option(help="Folder of the full-rank cell of equal seed.")],
    data: DataFolder,
    output: Output,
    threads: Threads = 1,
) -> None:
    """Compare every checkpoint of CELL with the full-rank REFERENCE's of its step, and write that to OUTPUT."""
    _, batch = _begin(settings, cell_dir, data, threads)
    write_csv(output, tabulate(against(cell_dir, reference, batch)))


def _begin(settings: Path, cell_dir: Path, data: Path, threads: int) -> tuple[DynamicsSettings, Tensor]:
    """Return the settings and the fixed batch, on the device that reads."""
    torch.set_num_threads(threads)
    release_freed_memory()  # lowers the peak memory by a third
    chosen, cell = read_section(DynamicsSettings, settings), read_section(Cell, cell_dir / "config.yaml")
    rows = held_out_batch(data / "tokens", chosen.batch_sequences, cell.model.context_length)
    return chosen, torch.from_numpy(rows).to(chosen_device(cell.runtime.device))


if __name__ == "__main__":
    command_line(app)
