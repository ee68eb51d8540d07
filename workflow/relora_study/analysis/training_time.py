"""The cost of training: the devices of a cell, and the unit of their hours."""

from collections.abc import Iterable, Mapping
from typing import Any


def devices(manifest: Mapping[str, Any]) -> int:
    """The number of GPUs that trained the cell, or of CPU cores."""
    return int(str(manifest["processes"] if on_gpu(manifest) else manifest["threads"]))


def on_gpu(manifest: Mapping[str, Any]) -> bool:
    """Whether a GPU trained the cell."""
    return str(manifest["device"]).startswith("cuda")


def device_unit(manifests: Iterable[Mapping[str, Any]]) -> str:
    """The unit of the training time of all cells: GPU-hours if any cell trained on a GPU."""
    return "GPU-hours" if any(map(on_gpu, manifests)) else "CPU core-hours"
