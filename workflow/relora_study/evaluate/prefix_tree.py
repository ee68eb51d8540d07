"""Summed log-probabilities of many short sentences, in which what sentences begin with in common runs once.

The distinct sentences, sorted, are packed into rows. A row is a tree of prefixes in depth-first order: each node is an
input at its depth, sees its ancestors alone, and so computes what it would compute in every sentence that it begins. An
edge to a child is a prediction, whether the child is an input itself or the last token of a sentence.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from ..model.kernels.cross_entropy import head_log_probabilities
from .scoring import IdTuple, batches, check_vocabulary, padded

TREE_TOKENS = 64  # longer rows share more prefixes, and pay for it in attention


@dataclass
class PrefixTree:
    """A tree of prefixes: its nodes ``inputs`` at ``depths``, with ``last``, the last node below each.

    Edge i predicts ``targets``[i] at node ``sources``[i]; ``sentences`` holds the edges of each sentence, by its ids.
    """

    inputs: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    sentences: dict[IdTuple, list[int]] = field(default_factory=dict)
    nodes: list[int] = field(default_factory=list)  # those of the last sentence, by depth

    def shared(self, ids: IdTuple) -> int:
        """How many tokens ``ids`` begin with that the last sentence begins with, too."""
        previous = next(reversed(self.sentences), ())
        return sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(ids, previous, strict=False)))

    def size_with(self, ids: IdTuple) -> int:
        """How many nodes the row has once ``ids`` is added."""
        return len(self.inputs) + max(0, len(ids) - 1 - min(self.shared(ids), len(self.nodes)))

    def add(self, ids: IdTuple) -> None:
        """Add a sentence; sentences come sorted, so it shares most with the one before."""
        shared, edges = self.shared(ids), next(reversed(self.sentences.values()), [])
        self.nodes = self.nodes[:shared]
        for depth in range(len(self.nodes), len(ids) - 1):
            self.nodes.append(len(self.inputs))
            self.inputs.append(ids[depth])
            self.depths.append(depth)
            self.last.append(0)
        for node in self.nodes:
            self.last[node] = len(self.inputs) - 1
        kept = edges[: max(0, shared - 1)]
        added = range(len(kept), len(ids) - 1)
        self.sentences[ids] = kept + [len(self.targets) + number for number in range(len(added))]
        self.sources += [self.nodes[depth] for depth in added]
        self.targets += [ids[depth + 1] for depth in added]


def pack_trees(sentences: Iterable[IdTuple], tree_tokens: int = TREE_TOKENS) -> list[PrefixTree]:
    """Pack the distinct sentences into rows of at most ``tree_tokens`` nodes, or of one longer sentence."""
    rows: list[PrefixTree] = []
    for ids in sorted(set(sentences)):
        if not rows or rows[-1].size_with(ids) > tree_tokens:
            rows.append(PrefixTree())
        rows[-1].add(ids)
    return rows


@torch.inference_mode()
def log_probabilities(model: LlamaForCausalLM, sentences: Sequence[IdTuple], batch_tokens: int) -> list[float]:
    """The summed log-probability (nats) of all ids of each sentence but the first; 0 where there is no other.

    At most ``batch_tokens`` inputs run at a time, or one longer sentence. Raises :class:`UserError` where an id is not
    in the vocabulary.
    """
    check_vocabulary(model, sentences)
    sums: dict[IdTuple, float] = {}
    rows = [row for row in pack_trees(sentences, min(TREE_TOKENS, batch_tokens)) if row.inputs]
    for batch in batches(rows, lambda row: len(row.inputs), batch_tokens):
        sums |= _score(model, batch)
    return [sums.get(ids, 0.0) for ids in sentences]


def _score(model: LlamaForCausalLM, rows: list[PrefixTree]) -> dict[IdTuple, float]:
    device, longest = model.lm_head.weight.device, max(len(row.inputs) for row in rows)
    inputs, depths = (padded([getattr(row, name) for row in rows], 0, device) for name in ("inputs", "depths"))
    last = padded([row.last for row in rows], longest, device)
    hidden = model.model(
        input_ids=inputs, position_ids=depths, attention_mask=_hidden_from(last), use_cache=False
    ).last_hidden_state[last < longest]
    first = np.cumsum([0] + [len(row.inputs) for row in rows[:-1]])
    sources = np.concatenate([np.array(row.sources, int) + start for row, start in zip(rows, first, strict=True)])
    targets = np.concatenate([np.array(row.targets, int) for row in rows])
    edges = (torch.from_numpy(part).to(device) for part in (sources, targets))
    gains = head_log_probabilities(hidden, model.lm_head.weight, *edges).double().cpu().numpy()
    of_row = np.split(gains, np.cumsum([len(row.targets) for row in rows])[:-1])
    return {
        ids: float(gains[edges].sum())
        for row, gains in zip(rows, of_row, strict=True)
        for ids, edges in row.sentences.items()
    }


def _hidden_from(last: Tensor) -> Tensor:
    """What is added to attention's scores, [rows, 1, length, length]: 0 where node i is j or below j, else -inf.

    A boolean mask would be turned into this one in every layer.
    """
    places = torch.arange(last.shape[1], device=last.device)
    below = (places[None, :, None] >= places) & (places[None, :, None] <= last[:, None, :])
    return torch.zeros(below.shape, device=last.device).masked_fill_(~below, -torch.inf)[:, None]
