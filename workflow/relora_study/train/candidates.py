"""One rung of a search: a candidate trains up to it and is scored on the validation documents."""

import csv
from pathlib import Path

import torch
from torch import Tensor

from ..storage.rung import Rung
from .loop import mean_loss
from .run import Run

ROWS_AT_A_TIME = 16  # validation sequences of a forward pass


def dropped(candidate: str, step: int) -> Rung:
    """The record of a candidate that an earlier rung dropped: nothing trains for it."""
    return Rung(candidate=candidate, step=step, loss=None, dropped=True)


def scored(run: Run, candidate: str, step: int, rows: Tensor) -> Rung:
    """The record of ``run`` at ``step``, scored on ``rows`` [sequences, context_length + 1]."""
    if run.diverged_at is not None:
        return Rung(candidate=candidate, step=run.diverged_at, loss=None, diverged=True)
    return Rung(candidate=candidate, step=step, loss=validation_loss(run, rows))


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
