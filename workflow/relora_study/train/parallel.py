"""Data parallelism inside one training job: processes that torchrun starts, each with its share of every batch."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed

from ..model.device import chosen_device


def rank() -> int:
    """This process's number; 0 writes the files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes train the cell together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@contextmanager
def process_group(device_name: str) -> Iterator[torch.device]:
    """Join the processes that torchrun started (NCCL on GPUs, gloo on CPUs), and yield this one's device.

    Without torchrun there is one process and nothing to join.
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
    """What is drawn inside depends on ``seed`` alone, so that all processes draw the same; the generators stay."""
    with torch.random.fork_rng(enabled=True):
        torch.manual_seed(seed)
        yield


def process_share(batch: Tensor) -> Tensor:
    """This process's rows of the global ``batch`` [batch_size, ...]; the shares are equal."""
    return batch.chunk(world_size())[rank()]


def sum_over_processes(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor, in place, by its sum over the processes."""
    if world_size() > 1:
        waits = [distributed.all_reduce(tensor, async_op=True) for tensor in tensors]
        for wait in waits:
            wait.wait()


def any_process(value: bool, device: torch.device) -> bool:
    """Whether ``value`` is true in any process; all must ask."""
    flag = torch.tensor(float(value), device=device)
    sum_over_processes([flag])
    return bool(flag.item())


def gather(value: Any) -> list[Any]:
    """``value`` of every process, by rank."""
    values = [value]
    if world_size() > 1:
        values = [None] * world_size()
        distributed.all_gather_object(values, value)
    return values
