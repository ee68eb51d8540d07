"""Data parallelism in one training job: torchrun starts the processes, and each takes a share of every batch."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed

from ..model.device import chosen_device


def rank() -> int:
    """Return this process's number; process 0 writes the files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Return how many processes train the cell together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@contextmanager
def process_group(device_name: str) -> Iterator[torch.device]:
    """Join the processes that torchrun started (NCCL on GPUs, gloo on CPUs), and yield this process's device.

    Without torchrun, there is one process and nothing to join.
    """
    device = chosen_device(device_name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if together:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        if together:
            distributed.destroy_process_group()


@contextmanager
def drawing_alike(seed: int) -> Iterator[None]:
    """Seed the random generators with ``seed`` for this block, so that all processes draw alike, then restore them."""
    with torch.random.fork_rng(enabled=True):
        torch.manual_seed(seed)
        yield


def process_share(batch: Tensor) -> Tensor:
    """Return this process's rows of the global ``batch`` [batch_size, ...]; all shares are equal."""
    return batch.chunk(world_size())[rank()]


def sum_over_processes(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor, in place, by its sum over the processes."""
    if world_size() > 1:
        waits = [distributed.all_reduce(tensor, async_op=True) for tensor in tensors]
        for wait in waits:
            wait.wait()


def any_process(value: bool, device: torch.device) -> bool:
    """Tell whether ``value`` is true in any process. All processes must call it."""
    flag = torch.tensor(float(value), device=device)
    sum_over_processes([flag])
    return bool(flag.item())


def gather(value: Any) -> list[Any]:
    """Collect ``value`` from every process, by rank. All processes must call it."""
    values = [value]
    if world_size() > 1:
        values = [None] * world_size()
        distributed.all_gather_object(values, value)
    return values
