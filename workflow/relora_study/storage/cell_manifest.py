"""The manifest of a cell, `results/cells/<cell>/manifest.json`: the training writes it last, later stages read it."""

from pathlib import Path

from .contracts import Contract, read_contract


class CellManifest(Contract):
    """How a cell was trained, and how the training ended.

    ``steps`` is the configured number of steps. ``diverged_at`` is the step at which a loss, a gradient or a weight
    was not finite, or None if the training reached its last step. ``tokens`` and ``resets`` count up to the end.
    ``final_sha256`` is the hash of the last checkpoint's weights. ``ended`` is the time (ISO 8601, UTC) at which the
    training's last job ended; manifests of versions before 1.0 have none.
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
    ended: str | None = None
    final_sha256: str


def read_cell_manifest(cell_dir: Path) -> CellManifest:
    """Read the manifest of the cell in ``cell_dir``. Raises :class:`UserError` if it is missing or malformed."""
    path = cell_dir / "manifest.json"
    return read_contract(
        CellManifest,
        path,
        f"{path} is missing or malformed; delete it and run again: finished steps are not trained twice",
    )


def diverged_at(cell_dir: Path) -> int | None:
    """Return the step at which the cell diverged, or None if it did not diverge or has not ended."""
    return read_cell_manifest(cell_dir).diverged_at if (cell_dir / "manifest.json").exists() else None
