"""The full state that a stopped run continues from, bit for bit: weights, moments, random numbers, step."""

import hashlib
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..config import Cell
from ..contracts import Contract, read_contract, write_contract
from ..errors import UserError
from ..files import sha256, write_folder_whole
from ..model.checkpoints import checkpoint_place, is_whole, save_tensors
from ..schedule import due_steps
from . import parallel
from .disk import STATES_KEPT
from .divergence import Diverged, forget_divergence, read_divergence
from .log import rows_up_to
from .run import Run


def fingerprint(cell: Cell, data: str) -> str:
    """A hash of all that decides a cell's weights: not how often it saves, nor how long one job may last.

    ``data`` is the hash of the token ids.
    """
    machine = {"device", "processes", "nodes", "compile", "release_memory"}
    without = {"train": {"state_every", "time_limit", "divergence"}, "runtime": machine}
    return hashlib.sha256((cell.model_dump_json(exclude=without) + data).encode()).hexdigest()


class StateMetadata(Contract):
    """A state's state.json: its step, what made it, and the hash of its tensors."""

    step: int
    fingerprint: str
    settings: dict[str, Any]
    sha256: str


def set_aside_another_configurations_run(cell: Cell, cell_dir: Path, data: str) -> None:
    """Move what was trained with other settings or data to ``superseded-N``, with a warning that names both.

    So a changed setting trains anew, and nobody's GPU hours are deleted.
    """
    notes = [*map(_metadata, (cell_dir / "state").glob("step-*")), read_divergence(cell_dir)]
    # None is damaged, which `newest_whole_state` deals with.
    if {note.fingerprint for note in notes if note} <= {fingerprint(cell, data)}:
        return
    taken = [int(path.name.removeprefix("superseded-")) for path in cell_dir.glob("superseded-*")]
    place = cell_dir / f"superseded-{max(taken, default=0) + 1}"
    place.mkdir()
    tables = ("log.csv", "timing.csv", "evaluation.csv", "dynamics.csv")
    for name in ("checkpoints", "state", "evaluation", "diverged.json", *tables):
        if (cell_dir / name).exists():
            (cell_dir / name).rename(place / name)
    warnings.warn(f"{cell.name} was trained with other settings or data; its files are now in {place}", stacklevel=2)


def save_state(run: Run, step: int, cell_dir: Path) -> None:
    """Write ``cell_dir/state/step-NNNNNN`` in one piece, synced to disk, and drop all but the last few.

    All processes of the cell must call it; the first writes, with everyone's random numbers.
    Raises :class:`Diverged` where a weight or moment is not finite: such a state would end every run that follows.
    """
    require_finite(run, step, cell_dir)
    tensors = _learnt(run.model, run.optimizer) | _random_numbers()
    if parallel.rank() == 0:
        _write(run, step, tensors, cell_dir / "state")


def require_finite(run: Run, step: int, cell_dir: Path) -> None:
    """Raise :class:`Diverged` where a weight or moment is not finite after ``step``."""
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
    """The newest state that a run can continue from, and its step; (0, None) where there is none.

    Its hash fits, and the checkpoints and the rows of the log up to its step are there and whole. Another is set
    aside, with a warning that names what is amiss: the steps behind the state before it are trained again.
    """
    states = sorted((cell_dir / "state").glob("step-*"), reverse=True)
    whole = _steps_vouched_for(cell, cell_dir, due_steps(cell)) if states else 0
    for place in states:
        step = int(place.name.removeprefix("step-"))
        if (fits := _fits(place)) and step <= whole:
            return step, place
        aside = place.with_name(f"damaged-{place.name}")
        shutil.rmtree(aside, ignore_errors=True)
        place.rename(aside)
        amiss = f"the log or checkpoints of its steps are damaged behind step {whole}" if fits else "is damaged"
        warnings.warn(f"{place} {'is of no use: ' * fits}{amiss}; set aside, going on from before it", stacklevel=2)
    return 0, None


def _fits(place: Path) -> bool:
    """Whether a state has its files, and its tensors the hash they were written with."""
    file = place / "state.safetensors"
    metadata = _metadata(place)
    return metadata is not None and file.exists() and sha256(file) == metadata.sha256


def _metadata(place: Path) -> StateMetadata | None:
    """What a state says of itself; None where it cannot be read."""
    try:
        return read_contract(StateMetadata, place / "state.json", "")
    except UserError:
        return None


def recorded_divergence(cell: Cell, cell_dir: Path) -> int | None:
    """The step at which an earlier run of these settings diverged; None where the training is to go on.

    It goes on where ``train.divergence`` is no longer to record, and where the log or a checkpoint is damaged.
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
    """The last step up to which the log has every row and every checkpoint of the steps ``due`` is whole."""
    logged = len(rows_up_to(cell_dir / "log.csv", cell.train.steps))
    for step in due:
        place = checkpoint_place(cell_dir / "checkpoints", step)
        if step <= logged and not is_whole(place):
            warnings.warn(f"the checkpoint {place} is missing or damaged", stacklevel=2)
            return step - 1
    return logged


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
            optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in moments.items()}
    own = f"random/{parallel.rank()}"
    if f"{own}/cpu" in tensors:  # missing where a run goes on with more processes than it began with
        torch.set_rng_state(tensors[f"{own}/cpu"])
    if f"{own}/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors[f"{own}/cuda"])
