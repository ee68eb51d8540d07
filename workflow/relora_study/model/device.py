"""The device on which a process computes, GPUs that no other job has, and the memory that the process holds."""

import ctypes
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from ..errors import UserError

CHOSEN_ELSEWHERE = ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID")  # set where the user or SLURM chooses a job's GPUs
SECONDS_BETWEEN_LOOKS = 1.0

_held: dict[int, FileLock] = {}  # the system frees these GPUs when the process ends, however it ends


def claim_gpus(count: int, visible: int) -> list[int]:
    """Return ``count`` of the machine's ``visible`` GPUs that no other job of this user has, once they are free.

    They are the first ones, shared with whoever uses them, where the user or SLURM has chosen, or where there is one
    GPU. One process claims for all processes of its job on this machine.
    """
    if visible == 1 or any(name in os.environ for name in CHOSEN_ELSEWHERE):
        return list(range(count))
    if len(_held) < count:
        folder = Path(tempfile.gettempdir()) / f"relora_study-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        queue = FileLock(folder / "queue.lock")
        if not _is_ours(queue):
            print("other jobs wait for GPUs; waiting behind them", file=sys.stderr)
            queue.acquire()
        try:  # one job takes at a time: two would each hold half of the GPUs and wait for the rest
            _take(count, visible, folder)
        finally:
            queue.release()
    return sorted(_held)[:count]


def _take(count: int, visible: int, folder: Path) -> None:
    """Hold ``count`` GPUs, each from when it is free."""
    said = False
    while True:
        for number in range(visible):
            lock = FileLock(folder / f"gpu-{number}.lock")
            if len(_held) < count and number not in _held and _is_ours(lock):
                _held[number] = lock
        if len(_held) >= count:
            return
        if not said:
            print(
                f"{len(_held)} of {count} GPUs are free, of {visible}; waiting for other jobs to end", file=sys.stderr
            )
        said = True
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _is_ours(lock: FileLock) -> bool:
    """Take the lock if it is free, and tell whether it was."""
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


CPU = torch.device("cpu")


def chosen_device(name: str) -> torch.device:
    """Return the device for ``name``, a value of ``runtime.device``, of a process that computes alone.

    Its GPU is one that no other job of this user has. Raises :class:`UserError` if the machine has no GPU for it.
    """
    return CPU if device_type(name) == "cpu" else use_gpu(claim_gpus(1, torch.cuda.device_count())[0])


def device_type(name: str) -> str:
    """Return cpu or cuda for ``name``, a value of ``runtime.device``; auto takes a GPU if there is one.

    Raises :class:`UserError` if the machine has fewer GPUs than the job has processes here.
    """
    number, visible = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and not visible):
        return "cpu"
    if number >= visible:
        raise UserError(
            f"runtime.device {name} needs GPU {number}, and torch {torch.__version__} sees {visible} GPU(s) here;"
            " set runtime.device cpu, lower runtime.processes, or install a CUDA build of torch"
        )
    return "cuda"


def use_gpu(number: int) -> torch.device:
    """Make GPU ``number`` the one on which this process computes, and return it."""
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def peak_memory_bytes() -> int:
    """Return the most bytes of memory that this process has held at once; the system counts in bytes only on macOS."""
    unit = 1 if sys.platform == "darwin" else 2**10
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def release_freed_memory() -> bool:
    """Have the C library give freed blocks of 1 MiB and more back to the system at once. Returns whether it can.

    glibc keeps freed blocks in a heap, whose holes raised the peak memory of a training step by up to a sixth. Without
    the heap, each page that is taken again costs a page fault (benchmarks/README.md).
    """
    return _set(M_MMAP_THRESHOLD, 2**20)


def keep_freed_memory() -> bool:
    """Have the C library keep freed blocks, for work that frees and takes many. Returns whether it can.

    The process keeps blocks of up to 32 MiB (glibc's maximum), and 256 MiB in all.
    """
    return _set(M_MMAP_THRESHOLD, 2**25) and _set(M_TRIM_THRESHOLD, 2**28)


def _set(option: int, value: int) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return bool(mallopt and mallopt(option, value))
