"""What a finished training says of itself, `results/cells/<cell>/manifest.json`: the training writes, others read."""

from pathlib import Path

from .contracts import Contract, read_contract


class CellManifest(Contract):
    """How a cell was trained, and how it ended.

    ``steps`` is the configured number. ``diverged_at`` is the step whose loss, gradient or weights were not finite,
    None where the training reached its last step; ``tokens`` and ``resets`` count up to there, and ``final_sha256``
    is of the last checkpoint's weights.
    """

    cell: str
    parameters: int
    trainable_parameters: int
    steps: int
    diverged_at: int | None = None
    tokens: int
    resets: list[int]
    peak_memory_bytes: int
    device: str
    threads: int
    processes: int
    platform: str
    versions: dict[str, str]
    final_sha256: str


def read_cell_manifest(cell_dir: Path) -> CellManifest:
    """The manifest of the cell in ``cell_dir``. Raises :class:`UserError` where there is none, or it is malformed."""
    path = cell_dir / "manifest.json"
    return read_contract(CellManifest, path, f"{path} cannot be read; delete it and run again: nothing trains twice")


def diverged_at(cell_dir: Path) -> int | None:
    """The step at which the cell's training diverged; None where it did not, or has not ended."""
    return read_cell_manifest(cell_dir).diverged_at if (cell_dir / "manifest.json").exists() else None
