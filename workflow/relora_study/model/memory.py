"""The memory of this process: how much it held at most, and what the C library does with what tensors free."""

import ctypes
import resource
import sys

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
