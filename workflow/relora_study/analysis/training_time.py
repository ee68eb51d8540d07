"""The cost of training: its seconds, the devices of a cell, and the unit of their hours."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import UserError


def training_seconds(folder: Path) -> float:
    """The seconds that the steps in the timing.csv of ``folder`` trained, over all jobs of the training.

    Steps that a stop made the trainer take again count once. Raises :class:`UserError` if the file cannot be read.
    """
    path = folder / "timing.csv"
    try:
        return float(pd.read_csv(path).seconds.sum())
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"cannot read {path}: {error}; run snakemake, which makes it") from error


def devices(manifest: Mapping[str, Any]) -> int:
    """The number of GPUs that trained the cell, or of CPU cores."""
    return int(str(manifest["processes"] if on_gpu(manifest) else manifest["threads"]))


def on_gpu(manifest: Mapping[str, Any]) -> bool:
    """Whether a GPU trained the cell."""
    return str(manifest["device"]).startswith("cuda")


def device_unit(manifests: Iterable[Mapping[str, Any]]) -> str:
    """The unit of the training time of all cells: GPU-hours if any cell trained on a GPU."""
    return "GPU-hours" if any(map(on_gpu, manifests)) else "CPU core-hours"
