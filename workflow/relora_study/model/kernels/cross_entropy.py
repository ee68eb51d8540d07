"""The language-model head and its cross-entropy in one operation that never holds all logits.

Plain reference::

    def head_cross_entropy(hidden, weight, targets):
        return functional.cross_entropy(hidden @ weight.mT, targets)

    def head_log_probabilities(hidden, weight, sources, targets):
        return (hidden @ weight.mT).log_softmax(-1)[sources, targets]
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .matmul import as_autocast, fits_onednn, matmul, matmul_transposed_wide

CHUNK_BYTES = 64 * 2**20  # of float32 logits at a time: smaller chunks add to the head's gradient more often
CHUNK_BYTES_ON_GPU = 2**30
SCORED_ENTRIES = 512  # of the vocabulary at a time without gradients: their logits stay in a CPU's caches


class _HeadCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy (nats a token) of ``hidden`` [n, d] through a head ``weight`` [vocab, d], and its gradients.

    Both gradients are formed chunk by chunk beside the loss, while a chunk's logits are there:
    with p = softmax(h W^T) and one-hot y, dL/dh = (p - y) W / n and dL/dW = (p - y)^T h / n.
    Under autocast, all three products take its type; the softmax and the sums over chunks are in float32.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, fused: bool) -> Tensor:
        """The loss, a float32 scalar, of predicting ``targets`` int64 [n]."""
        of_hidden, of_weight = ctx.needs_input_grad[:2]
        hidden_gradient = torch.empty_like(hidden) if of_hidden or of_weight else None
        weight_gradient = None
        total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
        factors, head = as_autocast(hidden, weight)
        for rows, logits in _chunks_of_logits(factors, head):
            lost, gradient = _softmax(fused)(logits, targets[rows, None], len(hidden), hidden_gradient is not None)
            total += lost
            if hidden_gradient is not None and gradient is not None:
                hidden_gradient[rows] = matmul(gradient, head)
                if of_weight:
                    weight_gradient = matmul_transposed_wide(gradient, factors[rows], plus=weight_gradient)
            del logits, gradient  # else two chunks of them would be there at once
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return total / len(hidden)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        """The gradients of the forward pass, times the loss's own; none for a frozen weight."""
        hidden_gradient, weight_gradient = ctx.saved_tensors
        scaled = None if weight_gradient is None else weight_gradient.mul_(upstream[0])
        return hidden_gradient.mul_(upstream[0]), scaled, None, None


def _chunks_of_logits(hidden: Tensor, weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The rows of each chunk and their logits [rows, vocab], in the type of the factors, to be overwritten.

    All chunks share one buffer where the product can write to it: on a CPU, fresh memory costs more than the numbers.
    """
    rows = min(_chunk_rows(hidden, weight), len(hidden))
    buffer = None if fits_onednn(hidden, weight) else hidden.new_empty(rows, len(weight))
    for start in range(0, len(hidden), rows):
        chunk = slice(start, min(start + rows, len(hidden)))
        yield chunk, _logits(hidden[chunk], weight, buffer)  # held by no name here: its memory serves the next chunk


def _logits(part: Tensor, weight: Tensor, buffer: Tensor | None) -> Tensor:
    return matmul(part, weight.mT) if buffer is None else torch.mm(part, weight.mT, out=buffer[: len(part)])


def _loss_and_gradient(logits: Tensor, answers: Tensor, count: int, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """The summed loss (nats) of ``logits`` [n, vocab] for ``answers`` [n, 1], and the gradient of the loss / ``count``.

    All is computed at least in float32. The gradient has the type of ``logits``, and overwrites wide ones.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    chosen, largest = wide.gather(-1, answers), wide.amax(-1, keepdim=True)
    normalizer = wide.sub_(largest).exp_().sum(-1, keepdim=True)
    lost = (normalizer.log() + largest - chosen).sum()
    if not wanted:
        return lost, None
    gradient = wide.mul_(1.0 / (normalizer * count)).to(logits.dtype)
    return lost, gradient.scatter_add_(-1, answers, gradient.new_full(answers.shape, -1.0 / count))


@cache
def _softmax(fused: bool) -> Callable[[Tensor, Tensor, int, bool], tuple[Tensor, Tensor | None]]:
    return torch.compile(_loss_and_gradient) if fused else _loss_and_gradient


def _chunk_rows(hidden: Tensor, weight: Tensor) -> int:
    size = CHUNK_BYTES_ON_GPU if hidden.is_cuda else CHUNK_BYTES
    return max(64, size // (4 * len(weight)))


def head_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, fused: bool = False) -> Tensor:
    """Mean cross-entropy (nats) of ``hidden`` [..., d] through a head ``weight`` [vocab, d], for ``targets`` [...].

    ``fused`` has torch.compile join the softmax's elementwise passes over the logits.
    """
    rows = hidden.flatten(0, -2)
    return _HeadCrossEntropy.apply(rows, weight, targets.flatten(), fused)  # type: ignore[no-untyped-call, no-any-return]


@torch.no_grad()
def head_log_probabilities(hidden: Tensor, weight: Tensor, sources: Tensor, targets: Tensor) -> Tensor:
    """Log-probability (nats) of ``targets`` [k] at the rows ``sources`` [k] of ``hidden`` [n, d]: [k].

    ``hidden`` and the head ``weight`` [vocab, d] are float32 or wider. Each row meets the head once, however many
    targets it has, a part of the vocabulary at a time.
    """
    entries = max(SCORED_ENTRIES, CHUNK_BYTES_ON_GPU // (4 * len(hidden))) if hidden.is_cuda else SCORED_ENTRIES
    of_parts = [_log_sum_exp(matmul(hidden, part.mT)) for part in torch.split(weight, entries)]
    normalizers = torch.stack(of_parts).logsumexp(0)
    chosen: Tensor = torch.linalg.vecdot(hidden[sources], weight[targets])
    return chosen - normalizers[sources]


def _log_sum_exp(logits: Tensor) -> Tensor:
    """The logarithm [n] of each row's summed exponentials; overwrites ``logits`` [n, m].

    `log_softmax` is one operation, `logsumexp` four.
    """
    first = logits[:, 0].clone()
    return first - torch.log_softmax(logits, -1, out=logits)[:, 0]
