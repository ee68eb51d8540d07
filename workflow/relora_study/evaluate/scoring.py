"""Negative log-likelihoods of many token sequences, in batches without waste: sorted by length, bounded by tokens."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM


@torch.inference_mode()
def negative_log_likelihoods(
    model: LlamaForCausalLM, sequences: Sequence[Sequence[int]], batch_tokens: int
) -> list[Tensor]:
    """For each sequence of n ids, the float32 [n - 1] negative log-likelihoods, in nats, of all ids but the first.

    Each distinct sequence runs once. Padding is on the right, where causal attention cannot see it.
    """
    distinct = list(dict.fromkeys(tuple(ids) for ids in sequences))
    scores: dict[tuple[int, ...], Tensor] = {}
    for batch in _batches(sorted(distinct, key=len), batch_tokens):
        scores |= zip(batch, _score(model, batch), strict=True)
    return [scores[tuple(ids)] for ids in sequences]


def _batches(ordered: list[tuple[int, ...]], batch_tokens: int) -> Iterator[list[tuple[int, ...]]]:
    batch: list[tuple[int, ...]] = []
    for ids in ordered:
        if batch and (len(batch) + 1) * len(ids) > batch_tokens:
            yield batch
            batch = []
        batch.append(ids)
    if batch:
        yield batch


def _score(model: LlamaForCausalLM, batch: list[tuple[int, ...]]) -> list[Tensor]:
    padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in batch], batch_first=True)
    lengths = torch.tensor([len(ids) for ids in batch])
    scored = torch.arange(1, padded.shape[1]) < lengths[:, None]
    hidden = model.model(input_ids=padded[:, :-1], use_cache=False).last_hidden_state
    logits = model.lm_head(hidden[scored])
    losses = functional.cross_entropy(logits, padded[:, 1:][scored], reduction="none")
    return list(torch.split(losses, (lengths - 1).tolist()))
