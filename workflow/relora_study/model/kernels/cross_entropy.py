"""Compute the language-model head and its cross-entropy in one operation that never holds all logits.

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

CHUNK_BYTES = 64 * 2**20  # float32 logits of one chunk: smaller chunks add to the head's gradient more often
CHUNK_BYTES_ON_GPU = 2**30
SCORED_ENTRIES = 512  # entries of the vocabulary scored at a time: their logits stay in a CPU's caches


class _HeadCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy (nats a token) of ``hidden`` [n, d] through a head ``weight`` [vocab, d], and its gradients.

    The forward pass forms both gradients, chunk by chunk, while it has a chunk's logits: with p = softmax(h W^T) and
    one-hot y, dL/dh = (p - y) W / n and dL/dW = (p - y)^T h / n.
    Under autocast, the three products use autocast's type; the softmax and the sums over chunks are in float32.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, fused: bool) -> Tensor:
        """Return the loss of predicting ``targets`` int64 [n], a scalar of float32 or wider."""
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
            del logits, gradient  # otherwise two chunks would be in memory at once
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return total / len(hidden)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        """Scale the gradients of the forward pass by the upstream gradient; a frozen weight has none."""
        hidden_gradient, weight_gradient = ctx.saved_tensors
        scaled = None if weight_gradient is None else weight_gradient.mul_(upstream[0])
        return hidden_gradient.mul_(upstream[0]), scaled, None, None


def _chunks_of_logits(hidden: Tensor, weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the rows of each chunk with their logits [rows, vocab], which the caller may overwrite.

    All chunks share one buffer if the product can write into it: on a CPU, new memory costs more than the product.
    """
    rows = min(_chunk_rows(hidden, weight), len(hidden))
    buffer = None if fits_onednn(hidden, weight) else hidden.new_empty(rows, len(weight))
    for start in range(0, len(hidden), rows):
        chunk = slice(start, min(start + rows, len(hidden)))
        yield (
            chunk,
            _logits(hidden[chunk], weight, buffer),
        )  # no name here holds the logits, so their memory serves the next chunk


def _logits(part: Tensor, weight: Tensor, buffer: Tensor | None) -> Tensor:
    return matmul(part, weight.mT) if buffer is None else torch.mm(part, weight.mT, out=buffer[: len(part)])


def _loss_and_gradient(logits: Tensor, answers: Tensor, count: int, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """Return the summed loss (nats) of ``logits`` [n, vocab] for ``answers`` [n, 1] and, if ``wanted``, a gradient.

    The gradient is with respect to ``logits``, of the loss over ``count``, and has their type. Both are computed in
    float32 or wider. The logits are overwritten, but not in compiled code, which would copy its result over them.

    Narrower logits become float32 in the subtraction, and the gradient becomes narrow in the product. Conversions of
    their own would move as many bytes as all the rest.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    chosen, largest = logits.gather(-1, answers).to(wide), logits.amax(-1, keepdim=True).to(wide)
    target = None if torch.compiler.is_compiling() else logits
    shifted = torch.sub(logits, largest, out=target if logits.dtype == wide else None)
    normalizer = shifted.exp_().sum(-1, keepdim=True)
    lost = (normalizer.log() + largest - chosen).sum()
    if not wanted:
        return lost, None
    gradient = torch.mul(shifted, 1.0 / (normalizer * count), out=target).to(logits.dtype)
    return lost, gradient.scatter_add_(-1, answers, gradient.new_full(answers.shape, -1.0 / count))


@cache
def _softmax(fused: bool) -> Callable[[Tensor, Tensor, int, bool], tuple[Tensor, Tensor | None]]:
    return torch.compile(_loss_and_gradient) if fused else _loss_and_gradient


def _chunk_rows(hidden: Tensor, weight: Tensor) -> int:
    size = CHUNK_BYTES_ON_GPU if hidden.device.type == "cuda" else CHUNK_BYTES
    return max(64, size // (4 * len(weight)))


def head_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, fused: bool = False) -> Tensor:
    """Compute the mean cross-entropy (nats) of ``targets`` [...] from ``hidden`` [..., d] and a head [vocab, d].

    ``fused`` has torch.compile join the softmax's elementwise passes over the logits.
    """
    rows = hidden.flatten(0, -2)
    return _HeadCrossEntropy.apply(rows, weight, targets.flatten(), fused)  # type: ignore[no-untyped-call, no-any-return]


@torch.no_grad()
def head_log_probabilities(hidden: Tensor, weight: Tensor, sources: Tensor, targets: Tensor) -> Tensor:
    """Compute the log-probabilities [k] (nats) of ``targets`` [k] after the rows ``sources`` [k] of ``hidden`` [n, d].

    ``hidden`` and the head ``weight`` [vocab, d] are float32 or wider. The head is applied once to each row, even if a
    row has several targets, and to a part of the vocabulary at a time.
    """
    entries = max(SCORED_ENTRIES, CHUNK_BYTES_ON_GPU // (4 * len(hidden))) if hidden.is_cuda else SCORED_ENTRIES
    part_normalizers = [_log_sum_exp(matmul(hidden, part.mT)) for part in torch.split(weight, entries)]
    normalizers = torch.stack(part_normalizers).logsumexp(0)
    chosen: Tensor = torch.linalg.vecdot(hidden[sources], weight[targets])
    return chosen - normalizers[sources]


def _log_sum_exp(logits: Tensor) -> Tensor:
    """Compute the log [n] of the summed exponentials of each row of ``logits`` [n, m], which are overwritten.

    `log_softmax` is one operation, and `logsumexp` would be four.
    """
    first = logits[:, 0].clone()
    return first - torch.log_softmax(logits, -1, out=logits)[:, 0]
