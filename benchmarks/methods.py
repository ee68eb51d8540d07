"""What each method of a preset holds and costs: bytes, peak memory, time a step, operations.

`make bench-methods`, or `PYTHONPATH=workflow python benchmarks/methods.py --rounds 5`. Where a study of the preset left
its differences to full rank, those of the held-out loss stand beside the costs. A method with a warm start is measured
in both of its phases: bytes and peak memory are those of the larger phase, time and operations are means over the steps
of the training.
"""

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, NamedTuple

import pandas as pd
import torch
import typer
from activations import kept_bytes
from common import RESULTS, resident_kibibytes, seconds_in_turns
from relora_study.config import Cell, cells, read_study
from relora_study.config.schedule import has_adapters
from relora_study.cost.estimates import flops_per_token
from relora_study.train.loop import take_step
from relora_study.train.run import Run, start

CPU = torch.device("cpu")
STEPS = 50  # of a timed block: a period of the projections, so each block renews them once
MEBI = 2**20


def chosen_cells(preset: str) -> dict[str, Cell]:
    """One cell of each size and method of ``preset``, by name."""
    found = cells(read_study([Path("config.yaml"), Path(f"workflow/presets/{preset}.yaml")])).values()
    return {f"{cell.size_name}-{cell.method_name}": cell for cell in found if cell.seed == 42}


class Phase(NamedTuple):
    """A form that the model has in a training: with adapters, or with whole weights."""

    cell: Cell  # which has this form from its first step on
    steps: int


def phases(cell: Cell) -> list[Phase]:
    """The forms that the model of ``cell`` has, each with its optimizer steps; a warm start is one of them."""
    whole = {"rank": 0, "adapters_only": False} if cell.method.rank else {}
    adapted = [has_adapters(cell.method, step) for step in range(cell.train.steps)]
    found = []
    for form, steps in ((whole, adapted.count(False)), ({}, adapted.count(True))):
        method = cell.method.model_copy(update={"full_rank_steps": 0, "full_rank_from": None, **form})
        found += [Phase(cell.model_copy(update={"method": method}), steps)] if steps else []
    return found


def over_training(parts: list[Phase], values: Iterable[float]) -> float:
    """The mean of ``values``, one a phase, over the steps of the training."""
    return sum(part.steps * value for part, value in zip(parts, values, strict=True)) / sum(
        part.steps for part in parts
    )


def held_bytes(run: Run) -> dict[str, int]:
    """The bytes of weights, gradients and the optimizer's state that ``run`` holds after a step."""
    parameters = list(run.model.parameters())
    states = (value for state in run.optimizer.state.values() for value in state.values())
    return {
        "weights": _bytes(parameters),
        "gradients": _bytes(parameter.grad for parameter in parameters if parameter.grad is not None),
        "optimizer": _bytes(value for value in states if isinstance(value, torch.Tensor)),
    }


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def trained(cell: Cell, steps: int) -> Run:
    """A run of ``cell`` in the form that it has with its adapters, after ``steps`` steps on random ids."""
    run = start(cell, CPU, done=cell.method.full_rank_steps)
    block(run, steps)()
    return run


def block(run: Run, steps: int) -> Callable[[], None]:
    """``steps`` steps of ``run`` on one batch of random ids; none of them is due for a reset."""
    cell = run.cell
    ids = torch.randint(cell.model.vocab_size, (cell.train.batch_size, cell.model.context_length + 1))

    def steps_of_run() -> None:
        for _ in range(steps):
            take_step(run, ids, cell.method.full_rank_steps + 10)

    return steps_of_run


def peak_kibibytes(preset: str, name: str, phase: int) -> int:
    """Peak resident KiB of a fresh process that takes two steps of a phase, by its number, of the cell ``name``."""
    command = [sys.executable, __file__, "--preset", preset, "--memory-of", name, "--phase", str(phase)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def bytes_in(cell: Cell) -> dict[str, int]:
    """The bytes of weights, gradients, the optimizer's state and a micro-batch's activations in training ``cell``."""
    rows = min(cell.train.micro_batch_size, cell.train.batch_size)
    activations = kept_bytes(cell, cell.size.num_hidden_layers, rows, cell.model.context_length)
    return held_bytes(trained(cell, 2)) | {"activations": activations}


def costs(preset: str, name: str, cell: Cell) -> dict[str, float | str]:
    """What the cell ``name`` holds in the phase that holds most, in MiB, and its mean operations a token."""
    parts = phases(cell)
    held = max((bytes_in(part.cell) for part in parts), key=lambda found: sum(found.values()))
    return {
        "size": cell.size_name,
        "method": cell.method_name,
        **{f"{kind}_MiB": value / MEBI for kind, value in held.items()},
        "peak_MiB": max(peak_kibibytes(preset, name, number) for number in range(len(parts))) / 2**10,
        "flops_per_token": over_training(parts, [flops_per_token(part.cell) for part in parts]),
    }


def table(preset: str, rounds: int) -> pd.DataFrame:
    """A row a size and method; ``ms_per_step`` is of medians of ``rounds`` blocks, in which all phases take turns."""
    chosen = chosen_cells(preset)
    rows = pd.DataFrame([costs(preset, name, cell) for name, cell in chosen.items()])
    parts = {name: phases(cell) for name, cell in chosen.items()}
    timed = {f"{name}/{number}": part.cell for name, found in parts.items() for number, part in enumerate(found)}
    seconds = seconds_in_turns({key: block(trained(cell, 2), STEPS) for key, cell in timed.items()}, rounds)
    means = [over_training(found, [seconds[f"{name}/{n}"] for n in range(len(found))]) for name, found in parts.items()]
    return rows.assign(ms_per_step=[1000 * mean / STEPS for mean in means])


def with_differences(rows: pd.DataFrame, differences: pd.DataFrame) -> pd.DataFrame:
    """``rows`` with the difference of the held-out loss to full rank's (nats a token), and its interval."""
    of_loss = differences[differences.measure == "held_out_loss"]
    columns = ["size", "method", "difference", "difference_low", "difference_high"]
    return rows.merge(of_loss[columns], on=["size", "method"], how="left")


def main(
    rounds: Annotated[int, typer.Option(help="timed rounds")] = 5,
    threads: Annotated[int, typer.Option(help="CPU threads")] = 1,
    preset: Annotated[str, typer.Option(help="whose methods, and sizes")] = "fair",
    differences: Annotated[Path, typer.Option(help="the study's table")] = Path("results/tables/differences.csv"),
    memory_of: Annotated[str, typer.Option(hidden=True)] = "",
    phase: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Measure, and write results/benchmarks/methods.csv."""
    torch.set_num_threads(threads)
    if memory_of:
        trained(phases(chosen_cells(preset)[memory_of])[phase].cell, 2)
        print(resident_kibibytes("VmHWM"))
        return
    rows = table(preset, rounds)
    if differences.exists():
        rows = with_differences(rows, pd.read_csv(differences))
    RESULTS.mkdir(parents=True, exist_ok=True)
    rows.to_csv(RESULTS / "methods.csv", index=False, float_format="%.6g")
    print(rows.to_markdown(index=False, floatfmt=".4g"))


if __name__ == "__main__":
    typer.run(main)
