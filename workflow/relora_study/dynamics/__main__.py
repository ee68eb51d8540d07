"""Command line of the dynamics stage: `python -m relora_study.dynamics cell`."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from ..config import Cell, read_section
from ..data.tokens import held_out_batch
from ..errors import command_line
from ..files import write_csv
from ..memory import release_freed_memory
from ..model.device import chosen_device
from ..settings import DynamicsSettings
from .cell import cell_table, open_subject

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def dynamics() -> None:
    """Spectra of weights, gradients and updates."""


@app.command("cell")
def read_cell(
    settings: Annotated[Path, typer.Option(help="The settings of spectra, settings/dynamics.yaml.")],
    cell: Annotated[Path, typer.Option(help="Folder of the trained cell.")],
    data: Annotated[Path, typer.Option(help="Folder of the data stage, for the fixed held-out batch.")],
    output: Annotated[Path, typer.Option(help="Where the table is written, as CSV.")],
    threads: Annotated[int, typer.Option(min=1, help="Processor threads.")] = 1,
) -> None:
    """Read every checkpoint of one cell into one long table."""
    torch.set_num_threads(threads)
    release_freed_memory()  # two thirds of the peak without it
    chosen = read_section(DynamicsSettings, settings)
    trained = read_section(Cell, cell / "config.yaml")
    rows = held_out_batch(data / "tokens", chosen.batch_sequences, trained.model.context_length)
    batch = torch.from_numpy(rows).to(chosen_device(trained.runtime.device))
    subject = open_subject(cell, batch, chosen.subspace_dimensions, chosen.cycle_steps)
    write_csv(output, cell_table(subject, cell / "dynamics"))


if __name__ == "__main__":
    command_line(app)
