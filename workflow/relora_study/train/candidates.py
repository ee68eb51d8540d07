"""One rung of a search: a candidate trains up to it and is scored on the validation documents."""

import csv
from pathlib import Path

from ..config import Cell
from ..data.tokens import IdArray
from ..model.checkpoints import checkpoint_place, load_model
from ..model.scoring import summed_losses
from ..storage.contracts import RungResult
from .run import Run

SCORED_TOKENS = 2048  # of validation documents in a forward pass


def dropped(cell: Cell, step: int) -> RungResult:
    """The record of a candidate that an earlier rung dropped: nothing trains for it."""
    return RungResult(candidate=cell.method_name, seed=cell.seed, step=step, loss=None, dropped=True)


def scored(run: Run, step: int, documents: list[IdArray], cell_dir: Path) -> RungResult:
    """The record of the candidate in ``cell_dir`` at ``step``: its loss on ``documents``, as evaluation measures it.

    The checkpoint of ``step`` is scored, because ``run`` may be at a later step, where an earlier search led it.
    """
    name, seed = run.cell.method_name, run.cell.seed
    if run.diverged_at is not None and run.diverged_at <= step:
        return RungResult(candidate=name, seed=seed, step=run.diverged_at, loss=None, diverged=True)
    model = load_model(checkpoint_place(cell_dir / "checkpoints", step), run.device)
    length, tokens = run.cell.model.context_length, sum(len(ids) - 1 for ids in documents)
    nats = summed_losses(model, [ids.tolist() for ids in documents], length, SCORED_TOKENS)
    return RungResult(candidate=name, seed=seed, step=step, loss=sum(nats) / tokens)


def is_promoted(selection: Path, candidate: str) -> bool:
    """Whether the rung before lets ``candidate`` go on: ``selection`` is its CSV, with candidate and promoted."""
    with selection.open(encoding="utf-8", newline="") as stream:
        return any(row["candidate"] == candidate and row["promoted"] == "1" for row in csv.DictReader(stream))
