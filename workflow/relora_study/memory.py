"""What the C library does with memory that tensors free on a CPU."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def release_freed_memory() -> bool:
    """Have blocks of a MiB and more go back to the system as soon as they are freed; whether the C library can.

    glibc keeps freed blocks in a heap, whose holes raised a training step's peak by up to a sixth. To give them back
    costs a fault for each page that is taken again (benchmarks/README.md).
    """
    return _set(M_MMAP_THRESHOLD, 2**20)


def keep_freed_memory() -> bool:
    """Have freed blocks stay with the process, for work that takes and frees many; whether the C library can.

    Up to 32 MiB a block, glibc's most, and 256 MiB in all.
    """
    return _set(M_MMAP_THRESHOLD, 2**25) and _set(M_TRIM_THRESHOLD, 2**28)


def _set(option: int, value: int) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return bool(mallopt and mallopt(option, value))
