"""The checkpoints that are evaluated: plain transformers folders, with ReLoRA's factors beside the weights."""

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
from transformers import LlamaForCausalLM

from ..config import Cell
from ..contracts import Contract, read_contract, write_contract
from ..errors import UserError
from ..files import sha256, write_folder_whole
from .build import use_kernels
from .device import CPU
from .relora import ReLoRALinear, adapters, effective_state


class CheckpointMetadata(Contract):
    """What a checkpoint says of itself; ``scale`` is the adapters' alpha / rank, None where there are none.

    ``sha256`` holds the hash of each of its other files, by name.
    """

    step: int
    scale: float | None
    method: str
    cell: str
    sha256: dict[str, str]


def save_checkpoint(model: LlamaForCausalLM, cell: Cell, step: int, folder: Path) -> None:
    """Write ``folder/step-NNNNNN``: the effective weights, as transformers saves them, and the live factors."""

    def fill(place: Path) -> None:
        save_tensors(effective_state(model), place / "model.safetensors")
        model.config.architectures = ["LlamaForCausalLM"]
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
    """Where the checkpoint, or the state, of ``step`` lies in ``folder``."""
    return folder / f"step-{step:06d}"


def save_tensors(tensors: dict[str, Tensor], file: Path) -> None:
    """Write ``tensors`` as safetensors. Raises :class:`OSError`, as every other writer does, where the disk refuses."""
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, os.strerror(code)) from error


def _factors(layers: dict[str, ReLoRALinear], scale: float) -> dict[str, Tensor]:
    """A and B by name; B takes up what a trained scale differs from alpha / rank, so that W + ``scale`` B A holds."""
    ups = {f"{name}.B": layer.B.detach() * (layer.scale / scale) for name, layer in layers.items()}
    return {f"{name}.A": layer.A.detach() for name, layer in layers.items()} | ups


def list_checkpoints(cell_dir: Path, due: Iterable[int] = ()) -> dict[int, Path]:
    """A cell's checkpoints by step, in order, each checked against its hashes.

    Raises :class:`UserError` where there are none, or one is damaged, or one of the steps ``due`` is missing.
    """
    found = {int(path.name.removeprefix("step-")): path for path in sorted((cell_dir / "checkpoints").glob("step-*"))}
    if not found:
        raise UserError(f"{cell_dir}/checkpoints holds no checkpoints; train the cell first")
    expected = found | {step: checkpoint_place(cell_dir / "checkpoints", step) for step in due}
    for step, path in sorted(expected.items()):
        if not is_whole(path):
            raise UserError(
                f"the checkpoint {path} is missing or damaged; delete {cell_dir / 'manifest.json'} and run again:"
                f" the cell trains from the last good state before step {step}"
            )
    return found


def is_whole(path: Path) -> bool:
    """Whether the checkpoint in ``path`` has its files, and each its hash (a second for some gigabytes)."""
    try:
        hashes = read_metadata(path).sha256
        return bool(hashes) and all(sha256(path / name) == expected for name, expected in hashes.items())
    except (OSError, UserError):
        return False


def load_model(path: Path, device: torch.device = CPU) -> LlamaForCausalLM:
    """The model of a checkpoint on ``device``, effective weights, float32, with our kernels, in evaluation mode."""
    transformers.utils.logging.disable_progress_bar()
    try:
        model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(
            path, dtype="float32", local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise _not_whole(path, error) from error
    return use_kernels(model).eval().to(device)


def load_adapters(path: Path, device: torch.device = CPU) -> dict[str, tuple[Tensor, Tensor]]:
    """The live factors (A [rank, in], B [out, rank]) of each adapted layer by name; empty for full rank."""
    if read_metadata(path).scale is None:
        return {}
    try:
        tensors = load_file(path / "adapters.safetensors", device=str(device))
    except (OSError, SafetensorError) as error:
        raise _not_whole(path, error) from error
    names = [key.removesuffix(".A") for key in tensors if key.endswith(".A")]
    return {name: (tensors[f"{name}.A"], tensors[f"{name}.B"]) for name in names}


def read_metadata(path: Path) -> CheckpointMetadata:
    """What the checkpoint in ``path`` says of itself."""
    refusal = _not_whole(path, "checkpoint.json is missing or malformed")
    return read_contract(CheckpointMetadata, path / "checkpoint.json", str(refusal))


def _not_whole(path: Path, reason: object) -> UserError:
    return UserError(f"{path} is not a whole checkpoint ({reason}); delete it and train the cell again")
