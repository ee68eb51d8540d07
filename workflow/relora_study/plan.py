"""`python -m relora_study.plan`: what every cell of a configuration will cost, before anything is spent."""

import time
from pathlib import Path
from statistics import median
from typing import Annotated

import pandas as pd
import torch
import typer
from snakemake.utils import update_config  # type: ignore[import-untyped]

from .config import Cell, cells, check
from .errors import command_line
from .estimate import training_flops
from .files import read_yaml, write_csv
from .model.build import build_model
from .model.relora import add_adapters
from .report.published import FOLDER
from .report.shapes import has_papers_shape
from .train.checkpoints import bytes_needed, is_due
from .train.loop import take_step
from .train.parallel import chosen_device
from .train.run import start

# Dense bfloat16 operations a second with float32 sums, from the vendor's data sheets (A100 and H100 as SXM).
GPUS = {"A100": 312e12, "H100": 989e12, "RTX 4090": 165e12}
MEASURED_STEPS = 3

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def count_parameters(cell: Cell) -> tuple[int, int]:
    """Parameters in all, and those that train; nothing is allocated."""
    with torch.device("meta"):
        model = build_model(cell.size, cell.model, 0)
        if cell.method.rank:
            add_adapters(model, cell.method)
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def cell_plan(cell: Cell, share: float) -> dict[str, float | str]:
    """One row of the plan: hours are at ``share`` of a GPU's peak; memory is what one GPU holds throughout.

    That is float32 weights, gradients and Adam's two moments. Activations come on top: they depend on
    ``train.micro_batch_size`` and the attention kernel.
    """
    total, trainable = count_parameters(cell)
    tokens = cell.train.steps * cell.train.batch_size * cell.model.context_length
    flops = training_flops(cell)
    return {
        "cell": f"{cell.size_name}-{cell.method_name}",
        "parameters": total,
        "trainable": trainable,
        "tokens": tokens,
        "flops_per_token": flops / tokens,
        "flops": flops,
        "memory_GiB": (4 * total + 12 * trainable) / 2**30,
        "disk_GB": bytes_needed(cell, total, trainable) / 1e9,
        "checkpoints": sum(is_due(cell.train, step) for step in range(cell.train.steps + 1)),
        **{f"hours_{name.replace(' ', '_')}": flops / (peak * share) / 3600 for name, peak in GPUS.items()},
        "published_gpu_hours": _published_hours(cell),
    }


def _published_hours(cell: Cell) -> float:
    """The paper's A100 hours to step 20,000, where the cell has its shape and steps; else NaN."""
    final = pd.read_csv(FOLDER / "final.csv", comment="#").set_index(["size", "method"]).gpu_hours
    same = has_papers_shape(cell) and cell.train.steps == 20_000
    return float(final[cell.size_name, "relora" if cell.method.rank else "full"]) if same else float("nan")


def measured_hours(cell: Cell) -> float:
    """Hours that the cell would train on this machine's device, from a few of its steps on random ids."""
    device = chosen_device(cell.runtime.device)
    run = start(cell, device)
    shape = (cell.train.batch_size, cell.model.context_length + 1)
    ids, seconds = torch.randint(cell.model.vocab_size, shape, device=device), []
    for _ in range(MEASURED_STEPS + 1):
        began = time.perf_counter()
        take_step(run, ids, 1)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return median(seconds[1:]) * cell.train.steps / 3600


@app.command()
def plan(
    configs: Annotated[list[Path], typer.Argument(help="config.yaml, then overlays, weakest first")],
    share: Annotated[float, typer.Option(min=0.01, max=1.0, help="share of a GPU's peak that training reaches")] = 0.3,
    measure: Annotated[bool, typer.Option(help="time a few steps of each size and method on this machine")] = False,
    output: Annotated[Path, typer.Option(help="the CSV to write")] = Path("results/plan.csv"),
) -> None:
    """Print and write what each size and method of the study that CONFIGS make together costs, for one seed."""
    merged: dict[str, object] = {}
    for config in configs:
        update_config(merged, read_yaml(config))
    study = check(merged, configs)
    chosen = [cell for cell in cells(study).values() if cell.seed == study.study.seeds[0]]
    table = pd.DataFrame([cell_plan(cell, share) for cell in chosen])
    if measure:
        table["hours_here"] = [measured_hours(cell) for cell in chosen]
    write_csv(output, table)
    print(table.set_index("cell").T.to_markdown(floatfmt=".4g"))
    seeds = len(study.study.seeds)
    print(f"\nFor one of {seeds} seeds, at {share:.0%} of a GPU's peak. Written to {output}.")


if __name__ == "__main__":
    command_line(app)
