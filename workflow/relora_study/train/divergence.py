"""Handle a training whose numbers stop being finite: by `train.divergence`, the cell's result or an error."""

import sys
from pathlib import Path

from ..config import Cell
from ..errors import UserError
from ..storage.contracts import Contract, read_contract, write_contract


class Diverged(UserError):
    """A loss, gradient, weight or moment is not finite. ``reason`` says which number, ``step`` says when."""

    def __init__(self, reason: str, step: int, cell_dir: Path | None) -> None:
        """Compose the message: the reason, the newest state in ``cell_dir``, and settings to change."""
        states = sorted((cell_dir / "state").glob("step-*")) if cell_dir else []
        kept = f"the last good state is {states[-1]}" if states else "no state was saved before it"
        super().__init__(
            f"{reason} at step {step}; {kept};"
            " lower train.learning_rate, or lengthen warmup_steps and rewarmup_steps, and run again"
        )
        self.reason, self.step = reason, step


class DivergenceRecord(Contract):
    """The content of a cell's diverged.json; ``fingerprint`` is the hash of the settings and data that led there."""

    step: int
    reason: str
    fingerprint: str


def record_divergence(cell: Cell, cell_dir: Path, diverged: Diverged, fingerprint: str) -> None:
    """Write diverged.json, so that no later run trains the cell again, and say so on stderr."""
    record = DivergenceRecord(step=diverged.step, reason=diverged.reason, fingerprint=fingerprint)
    write_contract(_place(cell_dir), record)
    print(
        f"{cell.name}: diverged at step {diverged.step} ({diverged.reason}), which is recorded as its result;"
        f" delete {_place(cell_dir)} and {cell_dir / 'manifest.json'} to try again",
        file=sys.stderr,
    )


def read_divergence(cell_dir: Path) -> DivergenceRecord | None:
    """Read diverged.json, or return None if it is missing or damaged."""
    try:
        return read_contract(DivergenceRecord, _place(cell_dir), "")
    except UserError:
        return None


def forget_divergence(cell_dir: Path) -> None:
    """Remove diverged.json, so that the training goes on from its newest state."""
    _place(cell_dir).unlink(missing_ok=True)


def _place(cell_dir: Path) -> Path:
    return cell_dir / "diverged.json"
