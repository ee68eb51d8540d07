"""`python -m relora_study.dynamics cell`: take the readings of every checkpoint of a cell."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from ..config import Cell, read_section
from ..config.settings import DynamicsSettings
from ..data.tokens import held_out_batch
from ..errors import command_line
from ..model.device import chosen_device, release_freed_memory
from ..storage.files import write_csv
from .cell import cell_table, open_subject

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def dynamics() -> None:
    """Take spectra of weights, gradients and updates."""


@app.command("cell")
def read_cell(
    settings: Annotated[Path, typer.Option(help="The settings of spectra, settings/dynamics.yaml.")],
    cell_dir: Annotated[Path, typer.Option("--cell", help="Folder of the trained cell.")],
    data: Annotated[Path, typer.Option(help="Folder of the data stage, for the fixed held-out batch.")],
    output: Annotated[Path, typer.Option(help="Where the table is written, as CSV.")],
    threads: Annotated[int, typer.Option(min=1, help="Processor threads.")] = 1,
) -> None:
    """Take the readings of every checkpoint of CELL, and write them to OUTPUT as one long table."""
    torch.set_num_threads(threads)
    release_freed_memory()  # lowers the peak memory by a third
    dynamics_settings = read_section(DynamicsSettings, settings)
    cell = read_section(Cell, cell_dir / "config.yaml")
    rows = held_out_batch(data / "tokens", dynamics_settings.batch_sequences, cell.model.context_length)
    batch = torch.from_numpy(rows).to(chosen_device(cell.runtime.device))
    subject = open_subject(cell_dir, batch, dynamics_settings.subspace_dimensions, dynamics_settings.cycle_steps)
    write_csv(output, cell_table(subject, cell_dir / "dynamics"))


if __name__ == "__main__":
    command_line(app)
