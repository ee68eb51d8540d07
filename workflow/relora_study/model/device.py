"""The device that a process computes on."""

import os

import torch

from ..errors import UserError

CPU = torch.device("cpu")


def chosen_device(name: str) -> torch.device:
    """The device of this process that ``runtime.device`` names: auto takes a GPU where there is one.

    Raises :class:`UserError` where there is no GPU for this process.
    """
    number, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and not there):
        return CPU
    if number >= there:
        raise UserError(
            f"runtime.device {name}: GPU {number} is wanted, and torch {torch.__version__} sees {there} here;"
            " set runtime.device cpu, lower runtime.processes, or install a CUDA build of torch"
        )
    return torch.device("cuda", number)
