"""The disk that a cell needs: its checkpoints, and the states that a stopped run continues from."""

import sys
from pathlib import Path

from ..config import Cell
from ..files import require_room
from ..model.build import count_parameters
from ..schedule import due_steps

STATES_KEPT = 2  # the newest full states of a run; one more is there while it is written


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
