"""Save and restore the state of a run, so that a stopped training goes on bit for bit.

A state holds weights, moments, the generators' states and the step. Only the trainer reads it.
"""

import hashlib
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..config import Cell
from ..config.schedule import due_steps
from ..errors import UserError
from ..model.checkpoints import checkpoint_place, is_whole, save_tensors
from ..storage.contracts import Contract, read_contract, write_contract
from ..storage.files import sha256, write_folder_whole
from . import parallel
from .disk import STATES_KEPT
from .divergence import Diverged, forget_divergence, read_divergence
from .events import EVENTS
from .log import rows_up_to
from .run import Run


def fingerprint(cell: Cell, data: str) -> str:
    """Hash everything that decides a cell's weights: its settings and ``data``, the hash of the token ids.

    The machine, the time limit, the interval between states and the rungs of a search do not enter the hash.
    """
    machine = {"device", "processes", "nodes", "compile", "release_memory", "tensorboard"}
    without: dict[str, Any] = {"rungs": True, "train": {"state_every", "time_limit", "divergence"}, "runtime": machine}
    return hashlib.sha256((cell.model_dump_json(exclude=without) + data).encode()).hexdigest()


class StateMetadata(Contract):
    """The content of a state's state.json; ``sha256`` is the hash of the file of tensors."""

    step: int
    fingerprint: str
    settings: dict[str, Any]
    sha256: str


def set_aside_another_configurations_run(cell: Cell, cell_dir: Path, data: str) -> None:
    """Move the files of a training with other settings or data to ``superseded-N``, and warn.

    So a changed setting trains anew, and no GPU hours are deleted.
    """
    records = [*map(_metadata, (cell_dir / "state").glob("step-*")), read_divergence(cell_dir)]
    # None stands for a damaged record, which `newest_whole_state` sets aside.
    if {record.fingerprint for record in records if record} <= {fingerprint(cell, data)}:
        return
    taken = [int(path.name.removeprefix("superseded-")) for path in cell_dir.glob("superseded-*")]
    place = cell_dir / f"superseded-{max(taken, default=0) + 1}"
    place.mkdir()
    tables = ("log.csv", "timing.csv", "evaluation.csv", "dynamics.csv")
    for name in ("checkpoints", "state", "evaluation", "diverged.json", EVENTS, *tables):
        if (cell_dir / name).exists():
            (cell_dir / name).rename(place / name)
    warnings.warn(f"{cell.name} was trained with other settings or data; its files are now in {place}", stacklevel=2)


def save_state(run: Run, step: int, cell_dir: Path) -> None:
    """Write ``cell_dir/state/step-NNNNNN`` in one piece, synced to disk, and remove all but the newest states.

    All processes of the cell must call it. The first one writes, with the generators' states of all processes.
    Raises :class:`Diverged` if a weight or moment is not finite, because no run could go on from such a state.
    """
    require_finite(run, step, cell_dir)
    tensors = _learnt(run.model, run.optimizer) | _random_numbers()
    if parallel.rank() == 0:
        _write(run, step, tensors, cell_dir / "state")
    parallel.gather(None)  # torchrun kills the first process, which writes, 30 seconds after another has ended


def require_finite(run: Run, step: int, cell_dir: Path) -> None:
    """Raise :class:`Diverged` if a weight or moment is not finite after ``step``."""
    for name, tensor in _learnt(run.model, run.optimizer).items():
        if not tensor.isfinite().all():
            raise Diverged(f"{name} is not finite", step, cell_dir)


def _write(run: Run, step: int, tensors: dict[str, Tensor], folder: Path) -> None:
    def fill(place: Path) -> None:
        save_tensors(tensors, place / "state.safetensors")
        metadata = StateMetadata(
            step=step,
            fingerprint=fingerprint(run.cell, run.data),
            settings=run.cell.model_dump(),
            sha256=sha256(place / "state.safetensors"),
        )
        write_contract(place / "state.json", metadata)

    write_folder_whole(checkpoint_place(folder, step), fill)
    for old in sorted(folder.glob("step-*"))[:-STATES_KEPT]:
        shutil.rmtree(old)


def newest_whole_state(cell: Cell, cell_dir: Path) -> tuple[int, Path | None]:
    """Return the step and place of the newest state that a run can go on from, or (0, None).

    The state must match its hash, and the log and checkpoints up to its step must be whole. A newer state that fails is
    set aside with a warning that names the damage, and the steps after the previous state are trained again.
    """
    states = sorted((cell_dir / "state").glob("step-*"), reverse=True)
    whole = _steps_vouched_for(cell, cell_dir, due_steps(cell)) if states else 0
    for place in states:
        step = int(place.name.removeprefix("step-"))
        if (intact := _is_intact(place)) and step <= whole:
            return step, place
        aside = place.with_name(f"damaged-{place.name}")
        shutil.rmtree(aside, ignore_errors=True)
        place.rename(aside)
        damage = f"the log or checkpoints of its steps are damaged after step {whole}" if intact else "is damaged"
        warnings.warn(f"{place} {'is of no use: ' * intact}{damage}; set aside, going on from before it", stacklevel=2)
    return 0, None


def _is_intact(place: Path) -> bool:
    """Tell whether a state has both files, and its tensors match their hash."""
    file = place / "state.safetensors"
    metadata = _metadata(place)
    return metadata is not None and file.exists() and sha256(file) == metadata.sha256


def _metadata(place: Path) -> StateMetadata | None:
    """Read a state's state.json, or return None if it is missing or malformed."""
    try:
        return read_contract(StateMetadata, place / "state.json", "")
    except UserError:
        return None


def recorded_divergence(cell: Cell, cell_dir: Path) -> int | None:
    """Return the step at which an earlier run of these settings diverged, or None if the training must go on.

    It must go on if nothing is recorded, if ``train.divergence`` is now ``stop``, or if the log or a checkpoint before
    the divergence is damaged. In the last two cases, the record is removed.
    """
    record = read_divergence(cell_dir)
    if record is None:
        return None
    step = record.step
    whole = _steps_vouched_for(cell, cell_dir, due_steps(cell, step))
    if cell.train.divergence == "record" and whole >= step:
        return step
    forget_divergence(cell_dir)
    return None


def _steps_vouched_for(cell: Cell, cell_dir: Path, due: list[int]) -> int:
    """Return the last step up to which the log has every row, and every checkpoint of the steps ``due`` is whole."""
    logged = len(rows_up_to(cell_dir / "log.csv", cell.train.steps))
    for step in due:
        place = checkpoint_place(cell_dir / "checkpoints", step)
        if step <= logged and not is_whole(place):
            warnings.warn(f"the checkpoint {place} is missing or damaged", stacklevel=2)
            return step - 1
    return logged


def restore_state(model: nn.Module, optimizer: torch.optim.Optimizer, place: Path) -> None:
    """Load weights, moments and the generators' states from the state in ``place`` into ``model`` and ``optimizer``."""
    _put_back(model, optimizer, load_file(place / "state.safetensors"))


def _learnt(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return weights, buffers and moments by name."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = value
    return tensors


def _random_numbers() -> dict[str, Tensor]:
    """Return the states of the random generators of every process, by name. All processes must call it."""
    generators = {"cpu": torch.get_rng_state()} | (
        {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
    )
    return {
        f"random/{rank}/{kind}": state
        for rank, states in enumerate(parallel.gather(generators))
        for kind, state in states.items()
    }


def _put_back(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    model.load_state_dict({key.removeprefix("model/"): value for key, value in tensors.items() if key[:6] == "model/"})
    for name, parameter in model.named_parameters():
        start = f"optimizer/{name}/"
        moments = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
        if moments:
            # A copy, because products may differ in their last bits between a file's alignment and the allocator's.
            moments = {key: value.to(parameter.device, copy=True) for key, value in moments.items()}
            optimizer.state[parameter] = moments
    generator = f"random/{parallel.rank()}"
    if f"{generator}/cpu" in tensors:  # missing if the run goes on with more processes than it had
        torch.set_rng_state(tensors[f"{generator}/cpu"])
    if f"{generator}/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors[f"{generator}/cuda"])
