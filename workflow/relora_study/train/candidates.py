"""One rung of a search: a candidate trains up to it and is scored on the validation documents."""

import csv
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..config import Cell
from ..model.checkpoints import checkpoint_place, load_model
from ..storage.rung import Rung
from .loop import mean_loss
from .run import Run

ROWS_AT_A_TIME = 16  # validation sequences of a forward pass


def dropped(cell: Cell, step: int) -> Rung:
    """The record of a candidate that an earlier rung dropped: nothing trains for it."""
    return Rung(candidate=cell.method_name, seed=cell.seed, step=step, loss=None, dropped=True)


def scored(run: Run, step: int, rows: Tensor, cell_dir: Path) -> Rung:
    """The record of the candidate in ``cell_dir`` at ``step``, scored on ``rows`` [sequences, context_length + 1].

    The checkpoint of ``step`` is scored, because ``run`` may be at a later step, where an earlier search led it.
    """
    name, seed = run.cell.method_name, run.cell.seed
    if run.diverged_at is not None and run.diverged_at <= step:
        return Rung(candidate=name, seed=seed, step=run.diverged_at, loss=None, diverged=True)
    there = replace(run, model=load_model(checkpoint_place(cell_dir / "checkpoints", step), run.device))
    return Rung(candidate=name, seed=seed, step=step, loss=validation_loss(there, rows))


@torch.no_grad()
def validation_loss(run: Run, rows: Tensor) -> float:
    """Mean cross-entropy (nats a token) of ``rows`` without dropout; draws no random number."""
    run.model.eval()
    total = sum(
        (mean_loss(run, part.to(run.device)) * len(part) for part in torch.split(rows, ROWS_AT_A_TIME)),
        torch.zeros((), device=run.device),
    )
    run.model.train()
    return float(total) / len(rows)


def is_promoted(selection: Path, candidate: str) -> bool:
    """Whether the rung before lets ``candidate`` go on: ``selection`` is its CSV, with candidate and promoted."""
    with selection.open(encoding="utf-8", newline="") as stream:
        return any(row["candidate"] == candidate and row["promoted"] == "1" for row in csv.DictReader(stream))
