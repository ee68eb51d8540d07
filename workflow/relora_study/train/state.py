"""The full state that a stopped run continues from, bit for bit: weights, moments, random numbers, step."""

import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..config import Cell
from ..files import sha256, write_json
from . import parallel
from .checkpoints import STATES_KEPT


def fingerprint(cell: Cell) -> str:
    """A hash of all that decides a cell's weights: not how often it saves, nor how long one job may last."""
    machine = {"device", "processes", "nodes", "compile", "release_memory"}
    without = {"train": {"state_every", "time_limit"}, "runtime": machine}
    return hashlib.sha256(cell.model_dump_json(exclude=without).encode()).hexdigest()


def set_aside_another_configurations_run(cell: Cell, cell_dir: Path) -> None:
    """Move what was trained with other settings than ``cell`` to ``superseded-N``, with a warning that names both.

    So a changed setting trains anew, and nobody's GPU hours are deleted.
    """
    newest = max((cell_dir / "state").glob("step-*/state.json"), default=None)
    try:
        if newest is None or json.loads(newest.read_text(encoding="utf-8"))["fingerprint"] == fingerprint(cell):
            return
    except (ValueError, KeyError):
        return  # damaged: `restore_state` deals with it
    place = cell_dir / f"superseded-{len(list(cell_dir.glob('superseded-*'))) + 1}"
    place.mkdir()
    for name in ("checkpoints", "state", "evaluation", "log.csv", "timing.csv", "evaluation.csv", "dynamics.csv"):
        if (cell_dir / name).exists():
            (cell_dir / name).rename(place / name)
    warnings.warn(f"{cell.name} was trained with other settings; its files are now in {place}", stacklevel=2)


def save_state(model: nn.Module, optimizer: torch.optim.Optimizer, cell: Cell, step: int, folder: Path) -> None:
    """Write ``folder/step-NNNNNN`` in one piece, synced to disk, and drop all but the last few.

    All processes of the cell must call it; the first writes, with everyone's random numbers.
    """
    tensors = _learnt(model, optimizer) | _random_numbers()
    if parallel.rank() == 0:
        _write(tensors, {"step": step, "fingerprint": fingerprint(cell)}, folder)


def _write(tensors: dict[str, Tensor], metadata: dict[str, Any], folder: Path) -> None:
    place, partial = folder / f"step-{metadata['step']:06d}", folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    file = partial / "state.safetensors"
    save_file(tensors, file)
    _sync(file)
    write_json(partial / "state.json", metadata | {"sha256": sha256(file)})
    _sync(partial / "state.json")
    shutil.rmtree(place, ignore_errors=True)
    partial.rename(place)
    _sync(folder)
    for old in sorted(folder.glob("step-*"))[:-STATES_KEPT]:
        shutil.rmtree(old)


def newest_whole_state(folder: Path) -> tuple[int, Path | None]:
    """The newest state in ``folder`` whose hash fits, and its step; (0, None) where there is none.

    A damaged one is set aside with a warning that names it.
    """
    for place in sorted(folder.glob("step-*"), reverse=True):
        try:
            metadata = json.loads((place / "state.json").read_text(encoding="utf-8"))
            if sha256(place / "state.safetensors") == metadata["sha256"]:
                return int(metadata["step"]), place
        except (OSError, ValueError, KeyError):
            pass
        aside = place.with_name(f"damaged-{place.name}")
        shutil.rmtree(aside, ignore_errors=True)
        place.rename(aside)
        warnings.warn(f"{place} is damaged; set aside, continuing from the state before it", stacklevel=2)
    return 0, None


def restore_state(model: nn.Module, optimizer: torch.optim.Optimizer, place: Path) -> None:
    """Put the weights, moments and random numbers of the state in ``place`` back, in place."""
    _put_back(model, optimizer, load_file(place / "state.safetensors"))


def _learnt(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = value
    return tensors


def _random_numbers() -> dict[str, Tensor]:
    """The random numbers' states of every process of the cell."""
    own = {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})
    return {
        f"random/{rank}/{kind}": state
        for rank, states in enumerate(parallel.gather(own))
        for kind, state in states.items()
    }


def _put_back(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    model.load_state_dict({key.removeprefix("model/"): value for key, value in tensors.items() if key[:6] == "model/"})
    for name, parameter in model.named_parameters():
        start = f"optimizer/{name}/"
        moments = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
        if moments:
            optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in moments.items()
            }
    own = f"random/{parallel.rank()}"
    if f"{own}/cpu" in tensors:  # missing where a run goes on with more processes than it began with
        torch.set_rng_state(tensors[f"{own}/cpu"])
    if f"{own}/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors[f"{own}/cuda"])


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
