"""What training took: hours of the device, and memory."""

import pandas as pd

from ..config import Cell
from .load import Results


def devices(manifest: dict[str, object]) -> int:
    """GPUs that trained, or CPU cores."""
    return int(str(manifest["processes"] if on_gpu(manifest) else manifest["threads"]))


def on_gpu(manifest: dict[str, object]) -> bool:
    """Whether a GPU trained."""
    return str(manifest["device"]).startswith("cuda")


def training_seconds(results: Results, cell: Cell) -> float:
    """How long ``cell`` trained, in all its jobs."""
    times = results.own_table("timing.csv")
    return float(times.seconds[times.cell == cell.name].sum())


def device_unit(results: Results) -> str:
    """What an hour of training is an hour of."""
    if results.published == "only":
        return "A100 GPU-hours"
    gpu = any(on_gpu(results.manifest(cell)) for cell in results.cells.values())
    return "GPU-hours" if gpu else "CPU core-hours"


def device_hours(results: Results) -> dict[tuple[str, str], pd.Series]:
    """Hours times devices by step, from 0, a series for each size and method; means over seeds."""
    if not results.cells:
        return {}
    times = results.own_table("timing.csv")
    many = times.cell.map({name: devices(results.manifest(cell)) for name, cell in results.cells.items()})
    times = times.assign(hours=times.seconds * many / 3600)
    spent = {}
    for (size, method), own in times.groupby(["size", "method"]):
        spent[str(size), str(method)] = pd.concat([pd.Series({0: 0.0}), own.groupby("step").hours.mean().cumsum()])
    return spent
