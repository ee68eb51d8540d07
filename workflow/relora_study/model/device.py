"""Choose the device on which a process computes."""

import os

import torch

from ..errors import UserError

CPU = torch.device("cpu")


def chosen_device(name: str) -> torch.device:
    """Return this process's device for ``name``, a value of ``runtime.device``; auto takes a GPU if there is one.

    Process n of a node takes GPU n. Raises :class:`UserError` if the machine has no such GPU.
    """
    number, visible = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and not visible):
        return CPU
    if number >= visible:
        raise UserError(
            f"runtime.device {name} needs GPU {number}, and torch {torch.__version__} sees {visible} GPU(s) here;"
            " set runtime.device cpu, lower runtime.processes, or install a CUDA build of torch"
        )
    return torch.device("cuda", number)
