"""Spectra: one decomposition a matrix, against a full SVD for each metric and layer; and the memory of a checkpoint.

`make bench-dynamics`, or `PYTHONPATH=workflow python benchmarks/dynamics.py`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import torch
import typer
from common import resident_kibibytes, seconds_in_turns, write_results
from relora_study.dynamics.cell import Subject, read_step
from relora_study.dynamics.matrices import weight_matrices
from relora_study.dynamics.measures import spectral_metrics, spectrum
from relora_study.model.checkpoints import save_checkpoint
from relora_study.model.device import release_freed_memory
from relora_study.train.run import start
from torch import Tensor
from train import CPU, paper_or_default

STEPS = (0, 60, 120)
METRICS = ("per", "condition_number")  # the published analysis's two


def plain_metric(metric: str, matrix: Tensor) -> float:
    """One metric of one matrix, in the way of the published analysis: its own full decomposition."""
    _, values, _ = torch.svd(matrix)
    if metric == "condition_number":
        return float(values[0] / values[-1])
    shares = values / values.sum()
    return float(torch.exp(-(shares * shares.log()).sum()) / len(values))


def plain(matrices: list[Tensor]) -> list[list[float]]:
    """Both metrics of every layer of every component [layers, m, n]."""
    return [[plain_metric(metric, layer) for layer in stack] for stack in matrices for metric in METRICS]


def ours(matrices: list[Tensor]) -> list[list[float]]:
    """The same, and all our other spectral metrics, from one decomposition."""
    found = [spectral_metrics(spectrum(stack), tuple(stack.shape[-2:])) for stack in matrices]
    return [metrics[metric].tolist() for metrics in found for metric in METRICS]


def save_cell(folder: Path) -> int:
    """Save three checkpoints of the paper's small ReLoRA cell; the bytes of one model's weights."""
    cell = paper_or_default(True)["small-relora"]
    for step in STEPS:
        save_checkpoint(start(cell, CPU).model, cell, step, folder)
    return (folder / f"step-{STEPS[0]:06d}" / "model.safetensors").stat().st_size


def bytes_of_a_reading(folder: Path) -> int:
    """By how much reading the last checkpoint, and those it is compared with, raises this process's peak."""
    cell = paper_or_default(True)["small-relora"]
    folders = {step: folder / f"step-{step:06d}" for step in STEPS}
    batch = torch.randint(cell.model.vocab_size, (2, cell.model.context_length + 1))
    before = resident_kibibytes("VmRSS")
    release_freed_memory()  # as the job does
    for _ in read_step(Subject(cell, folders, batch, 16, cycle_steps=cell.train.checkpoint_every), STEPS[-1]):
        pass
    return 1024 * (resident_kibibytes("VmHWM") - before)


def memory() -> tuple[str, str, str, float, float]:
    """Peak memory of a reading in a fresh process, against one model."""
    with tempfile.TemporaryDirectory() as folder:
        model = save_cell(Path(folder))
        command = [sys.executable, __file__, "--memory-of", folder]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        peak = int(found.stdout.split()[-1])
    return "paper small: a checkpoint's readings, against one model", "peak memory", "MiB", peak / 2**20, model / 2**20


def speed(rounds: int) -> list[tuple[str, str, str, float, float]]:
    """Matrices a second against the plain way, and the largest relative difference of the metrics."""
    matrices = list(weight_matrices(start(paper_or_default(True)["small-full"], CPU).model).values())
    seconds = seconds_in_turns({"ours": lambda: ours(matrices), "plain": lambda: plain(matrices)}, rounds)
    exact = torch.tensor(plain([matrix.double() for matrix in matrices]))
    errors = [(torch.tensor(way(matrices)) / exact - 1).abs().max().item() for way in (ours, plain)]
    layers = sum(map(len, matrices))
    case = "paper small: W2, V, O of 12 layers, "
    return [
        (f"{case}against torch.svd a metric", "speed", "matrices/s", *(layers / one for one in seconds.values())),
        (f"{case}against the same, both to torch.svd in float64", "largest error", "share", *errors),
    ]


def main(
    threads: Annotated[int, typer.Option(help="CPU threads")] = 2,
    rounds: Annotated[int, typer.Option(help="timed rounds")] = 5,
    memory_of: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Time, measure, write results/benchmarks/dynamics.csv."""
    torch.set_num_threads(threads)
    if memory_of:
        print(bytes_of_a_reading(memory_of))
    else:
        write_results("dynamics", [*speed(rounds), memory()])


if __name__ == "__main__":
    typer.run(main)
