"""The type of device whose operations the kernels choose: a tensor's own, or one that a count assumes.

`relora_study.cost` counts what a GPU would do, on a machine without one.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

_assumed: str | None = None


def device_kind(tensor: Tensor) -> str:
    """Return the type of device whose operations fit ``tensor``, such as cpu or cuda."""
    return _assumed or tensor.device.type


@contextmanager
def assuming(kind: str) -> Iterator[None]:
    """Let the kernels choose the operations of a device of type ``kind``; only for tensors without data."""
    global _assumed
    before, _assumed = _assumed, kind
    try:
        yield
    finally:
        _assumed = before
