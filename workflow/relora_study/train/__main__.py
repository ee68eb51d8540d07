"""`python -m relora_study.train cell`: pretrain one cell, going on from its newest state."""

import math
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy
import torch
import transformers
import typer
from filelock import FileLock, Timeout
from torch import Tensor

from ..config import Cell, read_section
from ..config.schedule import due_steps, is_reset
from ..data.tokens import open_documents, open_tokens, row, row_count, row_order
from ..errors import UserError, command_line
from ..model.checkpoints import list_checkpoints, read_metadata
from ..model.device import peak_memory_bytes, release_freed_memory
from ..storage.contracts import CellManifest, read_manifest, write_contract
from ..version import VERSION
from .candidates import dropped, is_promoted, scored
from .events import check_tensorboard
from .loop import BatchOf, Stopped, train
from .parallel import process_group, rank, world_size
from .run import Run

STOPPED = 75  # exit code after a saved stop: EX_TEMPFAIL of sysexits.h, which means "try again"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def stage() -> None:
    """Pretraining."""


Config = Annotated[Path, typer.Option(help="the cell's config.yaml; its folder receives the results")]
Tokens = Annotated[Path, typer.Option(help="folder of train.bin and its manifest")]
Threads = Annotated[int, typer.Option(help="CPU threads")]
Wait = Annotated[bool, typer.Option(help="wait for another process that trains the cell, or refuse")]


@app.command("cell")
def train_cell(config: Config, tokens: Tokens, threads: Threads, wait: Wait = False) -> None:
    """Pretrain the cell that CONFIG describes, going on from the newest state of an earlier run."""
    with _trained(config, tokens, threads, wait) as run:
        if rank() == 0:
            write_contract(config.parent / "manifest.json", _manifest(run, config.parent, threads))


@app.command("rung")
def train_to_rung(
    config: Config,
    tokens: Tokens,
    threads: Threads,
    until: Annotated[int, typer.Option(min=1, help="the rung: optimizer steps to train in all")],
    output: Annotated[Path, typer.Option(help="the JSON file of what was measured there")],
    selection: Annotated[Path | None, typer.Option(help="who goes on from the rung before")] = None,
    wait: Wait = False,
) -> None:
    """Pretrain a candidate of a search up to a rung and score it on the validation ids, unless it was dropped."""
    cell = read_section(Cell, config)
    if selection and not is_promoted(selection, cell.method_name):
        if int(os.environ.get("RANK", "0")) == 0:
            write_contract(output, dropped(cell, until))
        return
    with _trained(config, tokens, threads, wait, until) as run:
        if rank() == 0:
            # as many as the file holds, which data.held_out_tokens bounds
            documents = open_documents(tokens, "validation", sys.maxsize, cell.model.context_length)
            write_contract(output, scored(run, until, documents, config.parent))


@contextmanager
def _trained(config: Path, tokens: Path, threads: int, wait: bool, until: int | None = None) -> Iterator[Run]:
    """The run of the cell that ``config`` describes, trained to its last step or to ``until``; the cell is held."""
    cell, began = read_section(Cell, config), time.perf_counter()
    check_tensorboard(cell.runtime)
    torch.set_num_threads(max(1, threads // cell.runtime.processes_per_node))
    if cell.runtime.release_memory:
        release_freed_memory()
    limit = 60 * (cell.train.time_limit or math.inf)
    with process_group(cell.runtime.device) as device, _sole_trainer(config.parent, wait):
        asked = _stop_signals()  # from here on: a process that waits for the cell has nothing to save
        yield train(
            cell,
            device,
            _batches(tokens, cell),
            config.parent,
            lambda: bool(asked) or time.perf_counter() - began > limit,
            read_manifest(tokens).train.sha256,
            until,
        )


def _stop_signals() -> list[int]:
    """Return a list that receives each signal asking the process to end, so that the loop can save a state first."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda number, _: asked.append(number))
    return asked


@contextmanager
def _sole_trainer(cell_dir: Path, wait: bool) -> Iterator[None]:
    """Hold the cell for this job. The operating system frees it when the job's first process ends, however it ends.

    With ``wait``, wait for a process that already trains the cell, such as a job that outlived a killed Snakemake.
    Raises :class:`UserError` without ``wait``.
    """
    if rank():
        yield
        return
    lock = FileLock(cell_dir / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        busy = f"{cell_dir} is being trained by another process"
        if not wait:
            raise UserError(f"{busy}; wait for it or stop it") from None
        print(f"{busy}; waiting for it to end", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _batches(tokens: Path, cell: Cell) -> BatchOf:
    """Return a function from step to batch, which takes the rows in the cell's order and starts over at the end."""
    ids = open_tokens(tokens, "train", check_hash=rank() == 0)
    length, size = cell.model.context_length, cell.train.batch_size
    row_at = row_order(cell.seed if cell.data_order == "seed" else None, row_count(ids, length))

    def batch_of(step: int) -> Tensor:
        chosen = [row(ids, row_at(place), length) for place in range(step * size, (step + 1) * size)]
        return torch.from_numpy(numpy.stack(chosen))

    return batch_of


def _manifest(run: Run, cell_dir: Path, threads: int) -> CellManifest:
    cell, parameters = run.cell, list(run.model.parameters())
    trained = run.diverged_at or cell.train.steps
    last = max(list_checkpoints(cell_dir, due_steps(cell, run.diverged_at)).items())[1]
    return CellManifest(
        cell=cell.name,
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable_parameters=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        steps=cell.train.steps,
        diverged_at=run.diverged_at,
        tokens=trained * cell.train.batch_size * cell.model.context_length,
        resets=[step for step in range(1, trained + 1) if is_reset(cell.method, step)],
        peak_memory_bytes=peak_memory_bytes(),
        device=run.device.type,  # not its number, which depends on the other jobs
        threads=threads,
        processes=world_size(),
        platform=platform.platform(),
        versions={
            "relora_study": VERSION,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        ended=datetime.now(UTC).isoformat(timespec="seconds"),
        final_sha256=read_metadata(last).sha256["model.safetensors"],
    )


def main() -> None:
    """Run the command line; a training that saved its state and stopped exits with the code STOPPED."""
    try:
        command_line(app)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(STOPPED)


if __name__ == "__main__":
    main()
