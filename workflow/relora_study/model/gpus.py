"""Give each job GPUs of its own on a machine without a scheduler, by one lock for each GPU."""

import os
import sys
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

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
