"""What the C library does with memory that tensors free on a CPU."""

import ctypes
import sys

BLOCK_BYTES = 2**20
M_MMAP_THRESHOLD = -3  # of glibc's malloc.h


def release_freed_memory() -> bool:
    """Have blocks of a MiB and more go back to the system as soon as they are freed; whether the C library can.

    glibc keeps freed blocks in a heap, whose holes raised a training step's peak by up to a sixth. To give them back
    costs a fault for each page that is taken again (benchmarks/README.md).
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(M_MMAP_THRESHOLD, BLOCK_BYTES))
