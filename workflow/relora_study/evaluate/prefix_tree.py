"""Sum the log-probabilities of many short sentences, and run each beginning that sentences share only once.

Minimal pairs share long beginnings: "The law was" and "The law were" differ in one word. Three steps use this:

1. The distinct sentences are sorted, so that sentences with a common beginning are neighbours, and packed into trees.
   A node of a tree is a token that the model reads. The root is empty, so nodes of depth 0 are first tokens, and the
   path from the root to a node spells a prefix of one or more sentences.
2. Each tree is one row of a batch, with its nodes in depth-first order. A node has its depth as its position, and
   attends only to its ancestors and itself. So the model computes at a node what it would compute in each sentence
   with this prefix.
3. An edge from a node predicts a next token. A sentence's log-probability is the sum over the edges of its path. Its
   first token is read and not predicted, so no edge leads to it. Its last token is predicted and not read, so it needs
   no node.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..model.decoder import head_weight, hidden_states
from ..model.kernels.cross_entropy import head_log_probabilities
from ..model.scoring import IdTuple, batches, check_vocabulary, padded

TREE_TOKENS = 64  # larger trees share more prefixes, but cost more in attention


@dataclass
class PrefixTree:
    """The prefixes of sorted sentences, as lists over nodes in depth-first order and lists over edges."""

    inputs: list[int] = field(default_factory=list)  # node -> token id
    depths: list[int] = field(default_factory=list)  # node -> tokens before it in its sentences
    last: list[int] = field(default_factory=list)  # node -> the last node of its subtree
    sources: list[int] = field(default_factory=list)  # edge -> the node that predicts
    targets: list[int] = field(default_factory=list)  # edge -> the predicted token id
    sentences: dict[IdTuple, list[int]] = field(default_factory=dict)  # sentence -> its edges
    nodes: list[int] = field(default_factory=list)  # depth -> node, on the path of the last sentence

    def shared(self, ids: IdTuple) -> int:
        """Count the tokens of the longest common prefix of ``ids`` and the last sentence."""
        previous = next(reversed(self.sentences), ())
        return sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(ids, previous, strict=False)))

    def size_with(self, ids: IdTuple) -> int:
        """Return how many nodes the tree would have with ``ids`` added."""
        return len(self.inputs) + max(0, len(ids) - 1 - min(self.shared(ids), len(self.nodes)))

    def add(self, ids: IdTuple) -> None:
        """Add a sentence. Sentences come sorted, so none shares a longer prefix with ``ids`` than the last one."""
        shared, edges = self.shared(ids), next(reversed(self.sentences.values()), [])
        self.nodes = self.nodes[:shared]
        for depth in range(len(self.nodes), len(ids) - 1):
            self.nodes.append(len(self.inputs))
            self.inputs.append(ids[depth])
            self.depths.append(depth)
            self.last.append(0)
        for node in self.nodes:
            self.last[node] = len(self.inputs) - 1
        shared_edges = edges[: max(0, shared - 1)]
        new_depths = range(len(shared_edges), len(ids) - 1)
        self.sentences[ids] = shared_edges + [len(self.targets) + number for number in range(len(new_depths))]
        self.sources += [self.nodes[depth] for depth in new_depths]
        self.targets += [ids[depth + 1] for depth in new_depths]


def pack_trees(sentences: Iterable[IdTuple], tree_tokens: int = TREE_TOKENS) -> list[PrefixTree]:
    """Pack the distinct sentences into trees of at most ``tree_tokens`` nodes, or of one longer sentence."""
    trees: list[PrefixTree] = []
    for ids in sorted(set(sentences)):
        if not trees or trees[-1].size_with(ids) > tree_tokens:
            trees.append(PrefixTree())
        trees[-1].add(ids)
    return trees


@torch.inference_mode()
def log_probabilities(model: PreTrainedModel, sentences: Sequence[IdTuple], batch_tokens: int) -> list[float]:
    """Return for each sentence the summed log-probability (nats) of all its ids but the first, or 0 if it has only one.

    At most ``batch_tokens`` nodes run at a time, or one longer sentence. Raises :class:`UserError` if an id is not in
    the model's vocabulary.
    """
    check_vocabulary(model, sentences)
    sums: dict[IdTuple, float] = {}
    trees = [tree for tree in pack_trees(sentences, min(TREE_TOKENS, batch_tokens)) if tree.inputs]
    for batch in batches(trees, lambda tree: len(tree.inputs), batch_tokens):
        sums |= _score(model, batch)
    return [sums.get(ids, 0.0) for ids in sentences]


def _score(model: PreTrainedModel, trees: list[PrefixTree]) -> dict[IdTuple, float]:
    """Return the summed log-probability (nats) of each sentence of ``trees``, which run as one batch."""
    edge_scores = _edge_log_probabilities(model, trees, _node_states(model, trees))
    return {
        ids: float(scores[edges].sum())
        for tree, scores in zip(trees, edge_scores, strict=True)
        for ids, edges in tree.sentences.items()
    }


def _node_states(model: PreTrainedModel, trees: list[PrefixTree]) -> Tensor:
    """Return the last hidden states of all nodes, tree after tree, without padding: [nodes, d_model]."""
    device, longest = head_weight(model).device, max(len(tree.inputs) for tree in trees)
    inputs, depths = (padded([getattr(tree, name) for tree in trees], 0, device) for name in ("inputs", "depths"))
    last = padded([tree.last for tree in trees], longest, device)
    states = hidden_states(model, inputs, position_ids=depths, attention_mask=_ancestor_mask(last))
    return states[last < longest]


def _edge_log_probabilities(model: PreTrainedModel, trees: list[PrefixTree], hidden: Tensor) -> list[npt.NDArray[Any]]:
    """Return the log-probability (nats) of each edge's target, as one array [edges] for each tree."""
    first_nodes = np.cumsum([0] + [len(tree.inputs) for tree in trees[:-1]])
    sources = np.concatenate(
        [np.array(tree.sources, int) + first for tree, first in zip(trees, first_nodes, strict=True)]
    )
    targets = np.concatenate([np.array(tree.targets, int) for tree in trees])
    edges = (torch.from_numpy(part).to(hidden.device) for part in (sources, targets))
    scores = head_log_probabilities(hidden, head_weight(model), *edges).double().cpu().numpy()
    return np.split(scores, np.cumsum([len(tree.targets) for tree in trees])[:-1])


def _ancestor_mask(last: Tensor) -> Tensor:
    """Return the mask to add to attention's scores, from ``last`` [rows, nodes]: [rows, 1, nodes, nodes].

    The mask is 0 where node i is node j or in the subtree of node j, so that i sees j, and -inf elsewhere. It is not a
    boolean mask, because every layer would convert that into this one.
    """
    places = torch.arange(last.shape[1], device=last.device)
    below = (places[None, :, None] >= places) & (places[None, :, None] <= last[:, None, :])
    return torch.zeros(below.shape, device=last.device).masked_fill_(~below, -torch.inf)[:, None]
