"""Save, check and load checkpoints: plain transformers folders, with ReLoRA's factors in a file beside the weights.

Evaluation and dynamics read them, and so can anyone who has transformers.
"""

import errno
import os
import re
from collections.abc import Iterable
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from ..config import Cell
from ..errors import UserError
from ..storage.contracts import Contract, read_contract, write_contract
from ..storage.files import sha256, write_folder_whole
from .build import use_kernels
from .device import CPU
from .relora import ReLoRALinear, adapters, effective_state


class CheckpointMetadata(Contract):
    """The content of checkpoint.json.

    ``scale`` is alpha / rank of the adapters, or None without adapters. ``sha256`` holds the hash of every other file
    of the checkpoint, by name.
    """

    step: int
    scale: float | None
    method: str
    cell: str
    sha256: dict[str, str]


def save_checkpoint(model: PreTrainedModel, cell: Cell, step: int, folder: Path) -> None:
    """Write ``folder/step-NNNNNN``: the effective weights, as transformers saves them, and the present A and B."""

    def fill(place: Path) -> None:
        save_tensors(effective_state(model), place / "model.safetensors")
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(place)
        layers = adapters(model)
        if layers:
            save_tensors(_factors(layers, cell.method.scale), place / "adapters.safetensors")
        hashes = {file.name: sha256(file) for file in sorted(place.iterdir())}
        scale = cell.method.scale if layers else None
        names = {"method": cell.method_name, "cell": cell.name}
        write_contract(place / "checkpoint.json", CheckpointMetadata(step=step, scale=scale, sha256=hashes, **names))

    write_folder_whole(checkpoint_place(folder, step), fill)


def checkpoint_place(folder: Path, step: int) -> Path:
    """Return the place in ``folder`` of the checkpoint or state of ``step``."""
    return folder / f"step-{step:06d}"


def save_tensors(tensors: dict[str, Tensor], file: Path) -> None:
    """Write ``tensors`` as safetensors. Raises :class:`OSError` if the disk refuses, as every other writer does."""
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, os.strerror(code)) from error


def _factors(layers: dict[str, ReLoRALinear], scale: float) -> dict[str, Tensor]:
    """Return A and B by name.

    A trained scale can differ from ``scale`` = alpha / rank. B is multiplied by their ratio, so that a reader computes
    the effective weights as W + ``scale`` B A in every case.
    """
    ups = {f"{name}.B": layer.B.detach() * (layer.scale / scale) for name, layer in layers.items()}
    return {f"{name}.A": layer.A.detach() for name, layer in layers.items()} | ups


def list_checkpoints(cell_dir: Path, due: Iterable[int] = ()) -> dict[int, Path]:
    """List a cell's checkpoints by step, in order, after checking their hashes.

    Raises :class:`UserError` if there are none, if one is damaged, or if one of the steps ``due`` has none.
    """
    checkpoints = {
        int(path.name.removeprefix("step-")): path for path in sorted((cell_dir / "checkpoints").glob("step-*"))
    }
    if not checkpoints:
        raise UserError(f"{cell_dir}/checkpoints has no checkpoints; train the cell first")
    expected = checkpoints | {step: checkpoint_place(cell_dir / "checkpoints", step) for step in due}
    for step, path in sorted(expected.items()):
        if not is_whole(path):
            raise UserError(
                f"the checkpoint {path} is missing or damaged; delete {cell_dir / 'manifest.json'} and run again:"
                f" the cell trains from the last good state before step {step}"
            )
    return checkpoints


def is_whole(path: Path) -> bool:
    """Tell whether every file of the checkpoint in ``path`` matches its hash (about a second for some gigabytes)."""
    try:
        hashes = read_metadata(path).sha256
        return bool(hashes) and all(sha256(path / name) == expected for name, expected in hashes.items())
    except (OSError, UserError):
        return False


def load_model(path: Path, device: torch.device = CPU) -> PreTrainedModel:
    """Load a checkpoint's effective weights, in float32 on ``device``, as a model with our kernels, in eval mode."""
    return use_kernels(open_model(path)).eval().to(device)


def open_model(path: Path) -> PreTrainedModel:
    """Load a checkpoint's effective weights, in float32, as transformers' own model."""
    transformers.utils.logging.disable_progress_bar()
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            path, dtype="float32", local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise _not_whole(path, error) from error
    return model


def load_adapters(path: Path, device: torch.device = CPU) -> dict[str, tuple[Tensor, Tensor]]:
    """Load A [rank, in] and B [out, rank] of each adapted layer, by the layer's name; empty without adapters."""
    if read_metadata(path).scale is None:
        return {}
    try:
        tensors = load_file(path / "adapters.safetensors", device=str(device))
    except (OSError, SafetensorError) as error:
        raise _not_whole(path, error) from error
    names = [key.removesuffix(".A") for key in tensors if key.endswith(".A")]
    return {name: (tensors[f"{name}.A"], tensors[f"{name}.B"]) for name in names}


def read_metadata(path: Path) -> CheckpointMetadata:
    """Read checkpoint.json of the checkpoint in ``path``. Raises :class:`UserError` if it is missing or malformed."""
    refusal = _not_whole(path, "checkpoint.json is missing or malformed")
    return read_contract(CheckpointMetadata, path / "checkpoint.json", str(refusal))


def _not_whole(path: Path, reason: object) -> UserError:
    return UserError(f"{path} is not a whole checkpoint ({reason}); delete it and train the cell again")
