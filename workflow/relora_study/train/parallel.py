"""Data parallelism in one training job: torchrun starts the processes, and each takes a share of every batch."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from ..model.device import CPU, chosen_device, claim_gpus, device_type, use_gpu

BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
LONGEST_SUM = timedelta(minutes=30)  # PyTorch's own for gloo
LONGEST_WAIT = timedelta(days=1)  # for a process that hashes the tokens, saves, or waits for a cell or for GPUs

_for_objects: list[distributed.ProcessGroup] = []  # the group of `gather`, while there is one


def rank() -> int:
    """Return this process's number; process 0 writes the files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Return how many processes train the cell together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@contextmanager
def process_group(device_name: str, timeout: timedelta = LONGEST_SUM) -> Iterator[torch.device]:
    """Join the processes that torchrun started, and yield this process's device.

    Sums on GPUs go over NCCL, all else over gloo. ``timeout`` is how long a sum may wait for another process. Without
    torchrun, there is one process and nothing to join.
    """
    if "RANK" not in os.environ:
        yield chosen_device(device_name)
        return
    kind = device_type(device_name)
    distributed.init_process_group(BACKENDS[kind], timeout=timeout)
    try:
        _for_objects.append(distributed.new_group(backend="gloo", timeout=LONGEST_WAIT))
        yield CPU if kind == "cpu" else _gpu_of_this_process()
    finally:
        _for_objects.clear()
        distributed.destroy_process_group()


def _gpu_of_this_process() -> torch.device:
    """Let the first process of each machine claim GPUs for all there, and take this process's."""
    place, processes = (int(os.environ[name]) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    claims = gather(None if place else claim_gpus(processes, torch.cuda.device_count()))
    return use_gpu(claims[rank() - place][place])  # torchrun numbers the processes machine by machine


@contextmanager
def drawing_alike(seed: int) -> Iterator[None]:
    """Seed the random generators with ``seed`` for this block, so that all processes draw alike, then restore them."""
    mine = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=mine, device_type="cuda"):
        torch.manual_seed(seed)
        yield


def process_share(batch: Tensor) -> Tensor:
    """Return this process's rows of the global ``batch`` [batch_size, ...]; all shares are equal."""
    return batch.chunk(world_size())[rank()]


def sum_over_processes(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor, in place, by its sum over the processes."""
    if distributed.is_initialized():
        waits = [distributed.all_reduce(tensor, async_op=True) for tensor in tensors]
        for wait in waits:
            wait.wait()


def any_process(value: bool) -> bool:
    """Tell whether ``value`` is true in any process, without waiting for a GPU. All processes must call it."""
    if not distributed.is_initialized():
        return value
    flag = torch.tensor(float(value))
    sum_over_processes([flag])
    return bool(flag.item())


def gather(value: Any) -> list[Any]:
    """Collect ``value`` from every process, by rank, however long one of them takes. All processes must call it."""
    values = [value]
    if distributed.is_initialized():
        values = [None] * world_size()
        distributed.all_gather_object(values, value, group=_for_objects[0])
    return values
