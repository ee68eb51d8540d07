"""The checkpoints that are evaluated: plain transformers folders, with ReLoRA's factors beside the weights."""

import errno
import json
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaForCausalLM

from ..config import Cell, Train
from ..errors import UserError
from ..files import require_room, sha256, write_folder_whole, write_json
from ..model.build import count_parameters, use_kernels
from ..model.relora import ReLoRALinear, adapters, effective_state

CPU = torch.device("cpu")
STATES_KEPT = 2  # the newest full states of a run; one more is there while it is written


@dataclass(frozen=True)
class CheckpointMetadata:
    """What a checkpoint says of itself; ``scale`` is the adapters' alpha / rank, None where there are none.

    ``sha256`` holds the hash of each of its other files, by name.
    """

    step: int
    scale: float | None
    method: str
    cell: str
    sha256: dict[str, str]


def is_due(cell: Cell, step: int) -> bool:
    """Whether ``step`` leaves a checkpoint: the first, each multiple, ``checkpoint_offset`` after a reset's, the last.

    The paper evaluates every 1,000 steps, and reads adapters 100 steps after each multiple of their period, 2,000.
    """
    train, period = cell.train, cell.method.reset_period
    after_reset = period is not None and step > period and step % period == train.checkpoint_offset
    return step % train.checkpoint_every == 0 or after_reset or step == train.steps


def is_evaluated(train: Train, step: int) -> bool:
    """Whether the checkpoint of ``step`` is evaluated: all but the readings after a restart."""
    return step % train.checkpoint_every == 0 or step == train.steps


def due_steps(cell: Cell) -> list[int]:
    """The steps at which a whole run leaves checkpoints, in order."""
    return [step for step in range(cell.train.steps + 1) if is_due(cell, step)]


def check_disk(cell: Cell, cell_dir: Path) -> None:
    """Say what the cell needs; raise :class:`UserError` where the disk has not that much, beyond what is there."""
    needed = bytes_needed(cell, *count_parameters(cell))
    kept = [file for place in ("checkpoints", "state") for file in (cell_dir / place).glob("step-*/*.safetensors")]
    require_room(cell_dir, needed - sum(file.stat().st_size for file in kept), "checkpoints and states")
    # In one write: cells that start together share the terminal.
    sys.stderr.write(f"{cell.name}: needs {needed / 1e9:.2f} GB in {cell_dir}\n")


def bytes_needed(cell: Cell, parameters: int, trainable: int) -> int:
    """What a cell writes: float32 weights at each checkpoint, and the states kept with two moments for what trains."""
    return 4 * (len(due_steps(cell)) * parameters + (STATES_KEPT + 1) * (parameters + 2 * trainable))


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
        metadata = CheckpointMetadata(step, scale, cell.method_name, cell.name, hashes)
        write_json(place / "checkpoint.json", asdict(metadata))

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
    try:
        return CheckpointMetadata(**json.loads((path / "checkpoint.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise _not_whole(path, error) from error


def _not_whole(path: Path, reason: object) -> UserError:
    return UserError(f"{path} is not a whole checkpoint ({reason}); delete it and train the cell again")
