"""Both sentences of a minimal pair in one forward pass, in which what they begin with in common runs once.

A packed row is the common prefix, then the rest of the good sentence, then the rest of the bad one. An attention mask
hides the rests from each other, and each rest continues the prefix's positions, so every token sees what it would
see in its own sentence. The last token of a sentence predicts nothing and is left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaForCausalLM

from .scoring import Ids, check_vocabulary

Pair = tuple[Ids, Ids]
SENTENCES = (0, 1)


@dataclass(frozen=True)
class Packed:
    """One pair's row, and where each of its predictions is made.

    ``segments`` says of each input whether it is the prefix's (-1) or a sentence's own (0 good, 1 bad). A prediction
    is made at input ``sources``, of the id ``targets``, for the sentence ``owners``; the prefix's count for both.
    """

    inputs: list[int]
    positions: list[int]
    segments: list[int]
    sources: list[int]
    targets: list[int]
    owners: list[int]


def pack(pair: Pair) -> Packed:
    """Pack the ids of a pair's two sentences."""
    common = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(*pair, strict=False)))
    shared = min(common, min(map(len, pair)) - 1)
    inputs, positions, segments = list(pair[0][:shared]), list(range(shared)), [-1] * shared
    sources, targets, owners = list(range(shared - 1)), list(pair[0][1:shared]), [-1] * max(0, shared - 1)
    for sentence in SENTENCES:
        ids, first = pair[sentence], len(inputs)
        rest = ids[shared:-1]
        inputs += rest
        positions += range(shared, shared + len(rest))
        segments += [sentence] * len(rest)
        made_at = ([shared - 1] if shared else []) + list(range(first, first + len(rest)))
        sources += made_at
        targets += ids[len(ids) - len(made_at) :]
        owners += [sentence] * len(made_at)
    return Packed(inputs, positions, segments, sources, targets, owners)


@torch.inference_mode()
def pair_log_probabilities(model: LlamaForCausalLM, pairs: Sequence[Pair], batch_tokens: int) -> np.ndarray:
    """Summed log-probabilities (nats) of all ids but the first: float64 [pairs, 2], good and bad.

    At most ``batch_tokens`` inputs run at a time. Raises :class:`UserError` where an id is not in the vocabulary.
    """
    check_vocabulary(model, [ids for pair in pairs for ids in pair])
    packed = [pack(pair) for pair in pairs]
    sums = np.zeros((len(pairs), 2))
    for batch in _batches(packed, batch_tokens):
        sums[batch] = _score(model, [packed[index] for index in batch])
    return sums


def _batches(packed: list[Packed], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of rows of similar length, so that little is padding; rows that predict nothing are left out."""
    batch: list[int] = []
    predicting = [index for index, row in enumerate(packed) if row.sources]
    for index in sorted(predicting, key=lambda index: len(packed[index].inputs)):
        if batch and (len(batch) + 1) * len(packed[index].inputs) > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _score(model: LlamaForCausalLM, rows: list[Packed]) -> np.ndarray:
    device = model.lm_head.weight.device
    inputs, positions, segments = (_padded([getattr(row, name) for row in rows], device) for name in FIELDS)
    hidden = model.model(
        input_ids=inputs, position_ids=positions, attention_mask=_mask(segments), use_cache=False
    ).last_hidden_state
    where = torch.tensor([(index, source) for index, row in enumerate(rows) for source in row.sources], device=device)
    targets = torch.tensor([target for row in rows for target in row.targets], device=device)
    owners = np.concatenate([row.owners for row in rows])
    row_of = where[:, 0].cpu().numpy()
    logits = model.lm_head(hidden[where[:, 0], where[:, 1]])
    gains = -functional.cross_entropy(logits, targets, reduction="none").double().cpu().numpy()
    return np.stack([np.bincount(row_of, gains * (owners != 1 - s), len(rows)) for s in SENTENCES], axis=1)


FIELDS = ("inputs", "positions", "segments")


def _padded(values: list[list[int]], device: torch.device) -> Tensor:
    return pad_sequence([torch.tensor(row, device=device, dtype=torch.int64) for row in values], batch_first=True)


def _mask(segments: Tensor) -> Tensor:
    """Whether input i of a row sees input j: j is not later, and of the prefix or of i's own sentence. [n, 1, L, L]."""
    length = segments.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    same = segments[:, :, None] == segments[:, None, :]
    return (earlier & (same | (segments[:, None, :] == -1)))[:, None]
