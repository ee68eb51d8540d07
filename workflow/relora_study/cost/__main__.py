"""`python -m relora_study.cost`: estimate what each cell of a study costs, before anything runs."""

import json
import time
from collections.abc import Iterable, Iterator
from math import isnan, nan
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from pandas.api.types import is_integer_dtype

from ..analysis.published import final_values
from ..analysis.published_recipe import has_papers_shape
from ..config import Cell, Study, cells, read_study
from ..config.schedule import is_due
from ..config.settings import Search, experiments_of
from ..errors import command_line
from ..model.build import count_parameters
from ..model.device import chosen_device
from ..storage.files import write_csv
from ..train.disk import bytes_needed
from ..train.loop import take_step
from ..train.optimizer import count_optimizer_numbers
from ..train.run import start
from .estimates import MODES, data_bytes, expected_tokens_per_second, training_flops

MEASURED_STEPS = 3
RATES = {"learning_rate", "betas", "eps", "weight_decay"}
COSTLESS: Any = {"name": True, "method_name": True, "seed": True, "train": RATES}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def cell_plan(cell: Cell) -> dict[str, float | str]:
    """Return the plan's row of ``cell``; its hours are those of one H200, eager and compiled (:mod:`.estimates`).

    ``memory_GiB`` counts float32 weights, gradients and the optimizer's state (Adam's two moments, and projections),
    which each GPU holds throughout. Activations come on top. ``disk_GB`` is for one cell.
    """
    total, trainable = count_parameters(cell)
    tokens = cell.train.steps * cell.train.batch_size * cell.model.context_length
    flops, speeds = training_flops(cell), {mode: expected_tokens_per_second(cell, mode) for mode in MODES}
    return {
        "cell": f"{cell.size_name}-{cell.method_name}",
        "parameters": total,
        "trainable": trainable,
        "tokens": tokens,
        "flops_per_token": flops / tokens,
        "flops": float(flops),
        "memory_GiB": 4 * (total + trainable + count_optimizer_numbers(cell)) / 2**30,
        "disk_GB": bytes_needed(cell, total) / 1e9,
        "checkpoints": sum(is_due(cell, step) for step in range(cell.train.steps + 1)),
        **{_speed(mode): speeds[mode] for mode in MODES},
        **{_hours(mode): tokens / speeds[mode] / 3600 for mode in MODES},
        "published_gpu_hours": _published_hours(cell),
    }


def _speed(mode: str) -> str:
    return f"tokens_per_second_H200_{mode}"


def _hours(mode: str) -> str:
    return f"hours_H200_{mode}"


def _published_hours(cell: Cell) -> float:
    """Return the published A100 hours to step 20,000, or NaN if the cell differs from the paper in shape or steps."""
    final = final_values().gpu_hours
    comparable = cell.method.is_published_kind and has_papers_shape(cell) and cell.train.steps == 20_000
    return float(final[cell.size_name, "relora" if cell.method.rank else "full"]) if comparable else float("nan")


def measured_hours(cell: Cell) -> float:
    """Estimate the hours that one device of this machine would train the cell, on a GPU if there is one.

    The estimate times a few steps of one micro-batch of random ids. So it counts an optimizer step for every
    micro-batch, and is a little too high.
    """
    parts = cell.train.batch_size // cell.train.micro_batch_size
    runtime = cell.runtime.model_copy(update={"device": "auto", "processes": 1})
    train = cell.train.model_copy(update={"batch_size": cell.train.micro_batch_size})
    cell = cell.model_copy(update={"runtime": runtime, "train": train})
    device = chosen_device(runtime.device)
    run = start(cell, device)
    shape = (train.batch_size, cell.model.context_length + 1)
    ids, seconds = torch.randint(cell.model.vocab_size, shape), []
    for _ in range(MEASURED_STEPS + 1):
        began = time.perf_counter()
        take_step(run, ids, 1)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return median(seconds[1:]) * parts * train.steps / 3600


def trainings(study: Study) -> dict[str, list[tuple[Cell, float]]]:
    """Return all that ``study`` trains, by the plan's row: cells of different cost, each with how many there are.

    A size with a method is a row, and so is a sweep, with its cells beside those of rows above, and the search.
    """
    own, experiments, seeds = cells(study), experiments_of(study), study.study.seeds
    one_seed = (cell for cell in own.values() if cell.seed == seeds[0])
    rows = {f"{cell.size_name}-{cell.method_name}": [(cell, float(len(seeds)))] for cell in one_seed}
    swept = experiments.beside(own)
    for name, sweep in experiments.sweeps.sweeps.items():
        rows[f"sweep {name}"] = _by_cost([swept.pop(cell) for cell in sweep.cells if cell in swept])
    rows["search"] = [part for search in experiments.searches.values() for part in _candidates(search)]
    return {name: parts for name, parts in rows.items() if parts}


def _by_cost(several: Iterable[Cell]) -> list[tuple[Cell, float]]:
    """Return one of ``several`` for each of their costs, with how many cost so: a rate or a seed costs nothing."""
    groups: dict[str, list[Cell]] = {}
    for cell in several:
        shown = cell.model_dump(exclude=COSTLESS)
        groups.setdefault(json.dumps(shown), []).append(cell)
    return [(group[0], float(len(group))) for group in groups.values()]


def _candidates(search: Search) -> Iterator[tuple[Cell, float]]:
    """Yield candidates up to each rung, with how many of them may end there: the mean, as nobody knows yet which do."""
    settings, tried = search
    ending = [here - later for here, later in zip(settings.survivors, [*settings.survivors[1:], 0], strict=True)]
    ending[-1] *= len(settings.seeds)
    for last, trainings_there in zip(settings.rungs, ending, strict=True):
        for cell, count in _by_cost(tried.values()) if trainings_there else ():
            train = cell.train.model_copy(update={"steps": last})
            yield cell.model_copy(update={"train": train}), count * trainings_there / len(tried)


def plan_row(name: str, parts: list[tuple[Cell, float]]) -> dict[str, float | str]:
    """Return the plan's row of several trainings: means over them, but the most memory that one of them takes."""
    costs, counts = pd.DataFrame([cell_plan(cell) for cell, _ in parts]), [count for _, count in parts]
    row: dict[str, float | str] = {"cell": name, "trainings": round(sum(counts))}
    for column, values in costs.drop(columns="cell").items():
        mean = values.max() if str(column).endswith("_GiB") else np.average(values, weights=counts)
        row[str(column)] = round(mean) if is_integer_dtype(values) else float(mean)
    return row


@app.command()
def plan(
    configs: Annotated[list[Path], typer.Argument(help="config.yaml, then overlays, weakest first")],
    measure: Annotated[bool, typer.Option(help="time a few steps of each size and method on this machine")] = False,
    output: Annotated[Path, typer.Option(help="the CSV to write")] = Path("results/plan.csv"),
) -> None:
    """Print and write what a training of each size and method, sweep and search of the study in CONFIGS costs."""
    study = read_study(configs)
    chosen = trainings(study)
    table = pd.DataFrame([plan_row(name, parts) for name, parts in chosen.items()])
    if measure:
        table["hours_here"] = [measured_hours(parts[0][0]) if len(parts) == 1 else nan for parts in chosen.values()]
    write_csv(output, table)
    print(table.set_index("cell").map(_readable).T.to_markdown(disable_numparse=True, stralign="right"))
    print(f"\n{_summary(study, table)} Written to {output}.")


def _readable(value: float) -> str:
    if isinstance(value, int) or 1000 <= value < 10_000_000:
        return f"{value:,.0f}"
    return "-" if isnan(value) else f"{value:.3g}"


def _summary(study: Study, table: pd.DataFrame) -> str:
    """Say the cost of the whole study, which the table leaves out: all trainings, and the corpus that they share."""
    whole = table.drop(columns="cell").mul(table.trainings, axis=0).sum()
    eager, compiled = (whole[_hours(mode)] for mode in MODES)
    text = f"One of {len(study.study.seeds)} seeds. Speeds and hours follow from those that an H200 reached."
    if study.sweeps or study.tuning:
        text += " A sweep's or the search's column is a mean over its trainings, and of memory the most."
    text += f" Hours of all {table.trainings.sum()} trainings, compiled to eager: {compiled:.0f} to {eager:.0f}."
    text += f" Disk: {whole.disk_GB:.0f} GB for them"
    if study.data.source != "hub_pretokenized":
        return text + "."
    shards, ids = data_bytes(study)
    return f"{text}, {ids / 1e9:.1f} GB for token ids, and, until they are made, {shards / 1e9:.1f} GB for shards."


if __name__ == "__main__":
    command_line(app)
