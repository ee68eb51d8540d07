"""Check before a training that the disk has room for its checkpoints and states."""

from pathlib import Path

from ..config import Cell
from ..config.schedule import due_steps
from ..model.build import count_parameters
from ..storage.files import require_room
from .optimizer import count_optimizer_numbers

STATES_KEPT = 2  # the newest states stay; while a state is written, there is one more


def check_disk(cell: Cell, cell_dir: Path) -> None:
    """Raise :class:`UserError` if the files that the cell still needs do not fit on the disk."""
    needed = bytes_needed(cell, count_parameters(cell)[0])
    kept = [file for place in ("checkpoints", "state") for file in (cell_dir / place).glob("step-*/*.safetensors")]
    require_room(cell_dir, needed - sum(file.stat().st_size for file in kept), "checkpoints and states")


def bytes_needed(cell: Cell, parameters: int) -> int:
    """Count the bytes of a cell's files: float32 weights in each checkpoint, weights and the optimizer's in each state.

    In a checkpoint, a factorized layer is a whole effective weight.
    """
    whole = parameters if cell.method.factor_rank is None else count_parameters(_unfactorized(cell))[0]
    state = parameters + count_optimizer_numbers(cell)
    return 4 * (len(due_steps(cell)) * whole + (STATES_KEPT + 1) * state)


def _unfactorized(cell: Cell) -> Cell:
    return cell.model_copy(update={"method": cell.method.without("factor_rank")})
