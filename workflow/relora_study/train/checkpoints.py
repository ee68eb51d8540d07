"""The checkpoints that are evaluated: plain transformers folders, with ReLoRA's factors beside the weights."""

import json
import shutil
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
from ..files import write_json
from ..model.build import use_kernels
from ..model.relora import ReLoRALinear, adapters, effective_state

CPU = torch.device("cpu")
STATES_KEPT = 2  # the newest full states of a run; one more is there while it is written


@dataclass(frozen=True)
class CheckpointMetadata:
    """What a checkpoint says of itself; ``scale`` is the adapters' alpha / rank, None where there are none."""

    step: int
    scale: float | None
    method: str
    cell: str


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


def bytes_needed(cell: Cell, parameters: int, trainable: int) -> int:
    """What a cell writes: float32 weights at each checkpoint, and the states kept with two moments for what trains."""
    checkpoints = sum(is_due(cell, step) for step in range(cell.train.steps + 1))
    return 4 * (checkpoints * parameters + (STATES_KEPT + 1) * (parameters + 2 * trainable))


def save_checkpoint(model: LlamaForCausalLM, cell: Cell, step: int, folder: Path) -> None:
    """Write ``folder/step-NNNNNN``: the effective weights, as transformers saves them, and the live factors."""
    place = folder / f"step-{step:06d}"
    partial = folder / f".partial-{place.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(effective_state(model), partial / "model.safetensors", metadata={"format": "pt"})
    model.config.architectures = ["LlamaForCausalLM"]
    model.config.save_pretrained(partial)
    layers = adapters(model)
    if layers:
        save_file(_factors(layers, cell.method.scale), partial / "adapters.safetensors")
    scale = cell.method.scale if layers else None
    write_json(partial / "checkpoint.json", asdict(CheckpointMetadata(step, scale, cell.method_name, cell.name)))
    shutil.rmtree(place, ignore_errors=True)
    partial.rename(place)


def _factors(layers: dict[str, ReLoRALinear], scale: float) -> dict[str, Tensor]:
    """A and B by name; B takes up what a trained scale differs from alpha / rank, so that W + ``scale`` B A holds."""
    ups = {f"{name}.B": layer.B.detach() * (layer.scale / scale) for name, layer in layers.items()}
    return {f"{name}.A": layer.A.detach() for name, layer in layers.items()} | ups


def list_checkpoints(cell_dir: Path) -> dict[int, Path]:
    """A cell's checkpoints by step, in order. Raises :class:`UserError` where there are none or one lacks a file."""
    found = sorted((cell_dir / "checkpoints").glob("step-*"))
    if not found:
        raise UserError(f"{cell_dir}/checkpoints holds no checkpoints; train the cell first")
    for path in found:
        for name in ("config.json", "checkpoint.json", "model.safetensors"):
            if not (path / name).exists():
                raise _not_whole(path, f"it lacks {name}")
    return {int(path.name.removeprefix("step-")): path for path in found}


def load_model(path: Path, device: torch.device = CPU) -> LlamaForCausalLM:
    """The model of a checkpoint on ``device``, effective weights, float32, with our kernels, in evaluation mode."""
    transformers.utils.logging.disable_progress_bar()
    try:
        model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(path, dtype="float32", local_files_only=True)
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
