"""`python -m relora_study.train`: pretrain one cell."""

import platform
import resource
import time
from pathlib import Path
from typing import Annotated, Any

import numpy
import torch
import transformers
import typer
from torch import Tensor

from ..config import Cell, read_section
from ..data.tokens import open_tokens, row, row_count
from ..errors import command_line
from ..files import sha256, write_json
from .checkpoints import list_checkpoints
from .loop import BatchOf, Run, start, train
from .resets import is_reset

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def stage() -> None:
    """Pretraining."""


@app.command()
def cell(
    config: Annotated[Path, typer.Option(help="the cell's config.yaml; its folder receives the results")],
    tokens: Annotated[Path, typer.Option(help="folder of train.bin and its manifest")],
    threads: Annotated[int, typer.Option(help="CPU threads")],
) -> None:
    """Pretrain the cell that CONFIG describes, continuing where an earlier run stopped."""
    torch.set_num_threads(threads)
    settings = read_section(Cell, config)
    device = _device(settings.runtime.device)
    began = time.perf_counter()
    run = start(settings, device)
    train(run, _batches(tokens, settings), config.parent)
    write_json(config.parent / "manifest.json", _manifest(run, config.parent, time.perf_counter() - began, threads))


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _batches(tokens: Path, settings: Cell) -> BatchOf:
    """Rows in the corpus's order, from the first, and from the first again when they run out."""
    ids, length, size = open_tokens(tokens, "train"), settings.model.context_length, settings.train.batch_size
    rows = row_count(ids, length)

    def batch_of(step: int) -> Tensor:
        chosen = [row(ids, index % rows, length) for index in range(step * size, (step + 1) * size)]
        return torch.from_numpy(numpy.stack(chosen))

    return batch_of


def _manifest(run: Run, cell_dir: Path, seconds: float, threads: int) -> dict[str, Any]:
    settings, parameters = run.cell, list(run.model.parameters())
    last = list_checkpoints(cell_dir)[settings.train.steps]
    return {
        "cell": settings.name,
        "parameters": sum(parameter.numel() for parameter in parameters),
        "trainable_parameters": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        "steps": settings.train.steps,
        "tokens": settings.train.steps * settings.train.batch_size * settings.model.context_length,
        "resets": [step for step in range(1, settings.train.steps + 1) if is_reset(settings.method, step)],
        "seconds": seconds,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "device": str(run.device),
        "threads": threads,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "final_sha256": sha256(last / "model.safetensors"),
    }


if __name__ == "__main__":
    command_line(app)
