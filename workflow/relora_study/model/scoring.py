"""Score many token sequences in batches: sorted by length, so that little is padding, and bounded by tokens."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import UserError
from .decoder import head_weight, hidden_states
from .kernels.cross_entropy import head_log_probabilities

IdTuple = tuple[int, ...]
T = TypeVar("T")


@torch.inference_mode()
def negative_log_likelihoods(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], batch_tokens: int
) -> list[Tensor]:
    """Return for each sequence of n ids the negative log-likelihoods (nats) of all but the first, float32 [n - 1].

    Each distinct sequence runs once. Padding is on the right, where causal attention cannot see it.
    Raises :class:`UserError` if an id is not in the model's vocabulary.
    """
    distinct = list(dict.fromkeys(tuple(ids) for ids in sequences))
    check_vocabulary(model, distinct)
    scores: dict[IdTuple, Tensor] = {}
    for batch in batches(distinct, len, batch_tokens):
        scores |= zip(batch, _score(model, batch), strict=True)
    return [scores[tuple(ids)] for ids in sequences]


def windows(ids: Sequence[int], length: int, stride: int) -> Iterator[tuple[Sequence[int], int]]:
    """Cut ``ids`` into windows of ``length`` predictions that begin ``stride`` apart: (window, new predictions).

    The last ``new predictions`` ids of a window are scored, so every id but the first is scored exactly once. From the
    second window on, at least ``length`` - ``stride`` ids come before the first scored id. A short text is one window.
    """
    done, begin = 0, 0
    while done < len(ids) - 1:
        end = min(begin + length, len(ids) - 1)
        yield ids[begin : end + 1], end - done
        done, begin = end, begin + stride


def summed_losses(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], stride: int, batch_tokens: int
) -> list[float]:
    """Return for each sequence the summed loss (nats) of all ids but the first; NaN where there is no other.

    What is longer than the model's context is read in :func:`windows`.
    """
    length = model.config.max_position_embeddings
    cut = [list(windows(ids, length, stride)) for ids in sequences]
    losses = iter(negative_log_likelihoods(model, [part for parts in cut for part, _ in parts], batch_tokens))
    return [sum(float(next(losses)[-new:].double().sum()) for _, new in parts) if parts else math.nan for parts in cut]


def check_vocabulary(model: PreTrainedModel, sequences: Iterable[Sequence[int]]) -> None:
    """Raise :class:`UserError` if an id of ``sequences`` is not in the model's vocabulary."""
    largest = max((max(ids, default=0) for ids in sequences), default=0)
    if largest >= model.config.vocab_size:
        raise UserError(
            f"token id {largest} is outside the model's vocabulary of {model.config.vocab_size}; check data.tokenizer"
        )


def batches(items: Iterable[T], length: Callable[[T], int], batch_tokens: int) -> Iterator[list[T]]:
    """Yield batches of ``items`` by length, each of at most ``batch_tokens`` with padding, or of one longer item."""
    batch: list[T] = []
    for item in sorted(items, key=length):
        if batch and (len(batch) + 1) * length(item) > batch_tokens:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def padded(rows: Sequence[Sequence[int]], filling: int, device: torch.device) -> Tensor:
    """Return ``rows`` as int64 [rows, longest], with ``filling`` on the right of shorter rows."""
    filled = np.full((len(rows), max(map(len, rows))), filling, dtype=np.int64)
    for place, row in zip(filled, rows, strict=True):
        place[: len(row)] = row
    return torch.from_numpy(filled).to(device)


def _score(model: PreTrainedModel, batch: list[IdTuple]) -> list[Tensor]:
    head = head_weight(model)
    device = head.device
    inputs = padded(batch, 0, device)
    lengths = torch.tensor([len(ids) for ids in batch], device=device)
    scored = torch.arange(1, inputs.shape[1], device=device) < lengths[:, None]
    hidden = hidden_states(model, inputs[:, :-1])
    targets = inputs[:, 1:][scored]
    sources = torch.arange(len(targets), device=device)
    losses = -head_log_probabilities(hidden[scored], head, sources, targets)
    return list(torch.split(losses.cpu(), (lengths - 1).tolist()))
