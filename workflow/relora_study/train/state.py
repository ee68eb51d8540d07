"""The full state that a stopped run continues from, bit for bit: weights, moments, random numbers, step."""

import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..config import Cell
from ..errors import UserError
from ..files import sha256, write_json

STATES_KEPT = 2


def fingerprint(cell: Cell) -> str:
    """A hash of all that decides a cell's weights."""
    return hashlib.sha256(cell.model_dump_json().encode()).hexdigest()


def save_state(model: nn.Module, optimizer: torch.optim.Optimizer, cell: Cell, step: int, folder: Path) -> None:
    """Write ``folder/step-NNNNNN`` in one piece, synced to disk, and drop all but the last few."""
    place, partial = folder / f"step-{step:06d}", folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    file = partial / "state.safetensors"
    save_file(_tensors(model, optimizer), file)
    _sync(file)
    write_json(partial / "state.json", {"step": step, "fingerprint": fingerprint(cell), "sha256": sha256(file)})
    _sync(partial / "state.json")
    shutil.rmtree(place, ignore_errors=True)
    partial.rename(place)
    _sync(folder)
    for old in sorted(folder.glob("step-*"))[:-STATES_KEPT]:
        shutil.rmtree(old)


def restore_state(model: nn.Module, optimizer: torch.optim.Optimizer, cell: Cell, folder: Path) -> int:
    """Put the newest whole state in ``folder`` back, in place, and return its step; 0 where there is none.

    A state whose hash does not fit is set aside with a warning, and the one before it is used.
    Raises :class:`UserError` where the state was made with another configuration.
    """
    for place in sorted(folder.glob("step-*"), reverse=True):
        try:
            metadata = json.loads((place / "state.json").read_text(encoding="utf-8"))
            whole = sha256(place / "state.safetensors") == metadata["sha256"]
        except (OSError, ValueError, KeyError):
            whole = False
        if not whole:
            warnings.warn(f"{place} is damaged; set aside, continuing from the state before it", stacklevel=2)
            place.rename(place.with_name(f"damaged-{place.name}"))
            continue
        if metadata["fingerprint"] != fingerprint(cell):
            raise UserError(f"{place} was made with another configuration of {cell.name}; delete {folder.parent}")
        _put_back(model, optimizer, load_file(place / "state.safetensors"))
        return int(metadata["step"])
    return 0


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = value
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    return tensors


def _put_back(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    model.load_state_dict({key.removeprefix("model/"): value for key, value in tensors.items() if key[:6] == "model/"})
    for name, parameter in model.named_parameters():
        start = f"optimizer/{name}/"
        moments = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
        if moments:
            optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in moments.items()
            }
    torch.set_rng_state(tensors["random/cpu"])
    if "random/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random/cuda"])


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
