"""Choose the device on which a process computes; all jobs that may use a GPU take it here."""

import os

import torch

from ..errors import UserError
from .gpus import claim_gpus

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
