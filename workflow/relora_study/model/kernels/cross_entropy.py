"""The language-model head and its cross-entropy in one operation that never holds all logits.

Plain reference::

    def head_cross_entropy(hidden, weight, targets):
        return functional.cross_entropy(hidden @ weight.mT, targets)

    def head_log_probabilities(hidden, weight, sources, targets):
        return (hidden @ weight.mT).log_softmax(-1)[sources, targets]
"""

from typing import Any

import torch
from torch import Tensor

from .matmul import fits_onednn, matmul, matmul_transposed

CHUNK_BYTES = 64 * 2**20  # of float32 logits at a time: smaller chunks add to the head's gradient more often
CHUNK_BYTES_ON_GPU = 2**30
SCORED_ENTRIES = 512  # of the vocabulary at a time without gradients: their logits stay in a CPU's caches


class HeadCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy (nats a token) of ``hidden`` [n, d] through a head ``weight`` [vocab, d], and its gradients.

    Both gradients are formed chunk by chunk beside the loss, while a chunk's logits are there:
    with p = softmax(h W^T) and one-hot y, dL/dh = (p - y) W / n and dL/dW = (p - y)^T h / n.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """The loss, a float32 scalar, of predicting ``targets`` int64 [n]."""
        hidden_gradient = torch.empty_like(hidden) if any(ctx.needs_input_grad) else None
        weight_gradient = None
        total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
        rows = min(_chunk_rows(hidden, weight), len(hidden))
        buffer = _logits_buffer(hidden, weight, rows)
        for start in range(0, len(hidden), rows):
            part, answers = hidden[start : start + rows], targets[start : start + rows, None]
            logits = _logits(part, weight, buffer)
            normalizer, lost = _exponentiate(logits, answers)
            total += lost
            if hidden_gradient is not None:
                gradient = _turn_into_gradient(logits, normalizer, answers, len(hidden)).to(part.dtype)
                with torch.autocast(part.device.type, enabled=False):
                    hidden_gradient[start : start + rows] = matmul(gradient, weight.to(part.dtype))
                    if ctx.needs_input_grad[1]:
                        weight_gradient = matmul_transposed(gradient, part, plus=weight_gradient)
                del gradient
            del logits  # else two chunks of them would be there at once
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return total / len(hidden)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor | None, None]:
        """The gradients of the forward pass, times the loss's own; none for a frozen weight."""
        hidden_gradient, weight_gradient = ctx.saved_tensors
        scaled = None if weight_gradient is None else weight_gradient.mul_(upstream[0])
        return hidden_gradient.mul_(upstream[0]), scaled, None


def _logits_buffer(hidden: Tensor, weight: Tensor, rows: int) -> Tensor | None:
    """Room for a chunk's logits, which all chunks share: fresh memory costs a CPU more than the numbers do."""
    autocast = torch.is_autocast_enabled(hidden.device.type)
    without = autocast or hidden.dtype != weight.dtype or fits_onednn(hidden, weight)
    return None if without else hidden.new_empty(rows, len(weight))


def _logits(part: Tensor, weight: Tensor, buffer: Tensor | None) -> Tensor:
    """The logits [rows, vocab], at least in float32; in ``buffer`` where there is one."""
    if buffer is not None and buffer.dtype.itemsize >= 4:
        return torch.mm(part, weight.mT, out=buffer[: len(part)])
    logits = matmul(part, weight.mT)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _exponentiate(logits: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
    """Turn ``logits`` [n, vocab] into exponentials over their row's largest; their sums [n, 1], and the summed loss."""
    chosen, largest = logits.gather(-1, answers), logits.amax(-1, keepdim=True)
    normalizer = logits.sub_(largest).exp_().sum(-1, keepdim=True)
    return normalizer, (normalizer.log() + largest - chosen).sum()


def _turn_into_gradient(exponentials: Tensor, normalizer: Tensor, answers: Tensor, count: int) -> Tensor:
    """``exponentials`` [n, vocab], turned into the gradient that the mean over ``count`` rows has at the logits."""
    gradient = exponentials.mul_(1.0 / (normalizer * count))
    return gradient.scatter_add_(-1, answers, gradient.new_full(answers.shape, -1.0 / count))


def _chunk_rows(hidden: Tensor, weight: Tensor) -> int:
    size = CHUNK_BYTES_ON_GPU if hidden.is_cuda else CHUNK_BYTES
    return max(64, size // (4 * len(weight)))


def head_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy (nats) of ``hidden`` [..., d] through a head ``weight`` [vocab, d], for ``targets`` [...]."""
    rows = hidden.flatten(0, -2)
    return HeadCrossEntropy.apply(rows, weight, targets.flatten())  # type: ignore[no-untyped-call, no-any-return]


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
