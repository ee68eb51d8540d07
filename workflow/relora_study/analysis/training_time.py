"""The cost of training: hours of the device, and how many devices there were."""

from collections.abc import Iterable, Mapping
from typing import Any


def devices(manifest: Mapping[str, Any]) -> int:
    """GPUs that trained, or CPU cores."""
    return int(str(manifest["processes"] if on_gpu(manifest) else manifest["threads"]))


def on_gpu(manifest: Mapping[str, Any]) -> bool:
    """Whether a GPU trained."""
    return str(manifest["device"]).startswith("cuda")


def device_unit(manifests: Iterable[Mapping[str, Any]]) -> str:
    """What an hour of training is an hour of."""
    return "GPU-hours" if any(map(on_gpu, manifests)) else "CPU core-hours"
