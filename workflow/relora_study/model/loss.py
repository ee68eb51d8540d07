"""The language-model head and its cross-entropy in one operation that never holds all logits."""

from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 64 * 2**20  # of float32 logits at a time: smaller chunks add to the head's gradient more often
CHUNK_BYTES_ON_GPU = 2**30


class HeadCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy (nats a token) of ``hidden`` [n, d] through a head ``weight`` [vocab, d], and its gradients.

    Both gradients are formed chunk by chunk beside the loss, while a chunk's logits are there:
    with p = softmax(h W^T) and one-hot y, dL/dh = (p - y) W / n and dL/dW = (p - y)^T h / n.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """The loss, a float32 scalar, of predicting ``targets`` int64 [n]."""
        with_gradients = any(ctx.needs_input_grad)
        hidden_gradient, weight_gradient = torch.empty_like(hidden), torch.zeros_like(weight)
        total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
        rows = _chunk_rows(hidden, weight)
        for start in range(0, len(hidden), rows):
            part, answers = hidden[start : start + rows], targets[start : start + rows, None]
            logits = torch.nn.functional.linear(part, weight)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            log_normalizer = logits.logsumexp(-1, keepdim=True)
            total += (log_normalizer - logits.gather(-1, answers)).sum()
            if with_gradients:
                gradient = logits.sub_(log_normalizer).exp_()
                gradient.scatter_add_(-1, answers, gradient.new_full(answers.shape, -1.0))
                gradient = gradient.div_(len(hidden)).to(part.dtype)
                torch.mm(gradient, weight.to(part.dtype), out=hidden_gradient[start : start + rows])
                weight_gradient.addmm_(gradient.mT, part)
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return total / len(hidden)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        """The gradients of the forward pass, times the loss's own."""
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return hidden_gradient.mul_(upstream[0]), weight_gradient.mul_(upstream[0]), None


def _chunk_rows(hidden: Tensor, weight: Tensor) -> int:
    size = CHUNK_BYTES_ON_GPU if hidden.is_cuda else CHUNK_BYTES
    return max(64, size // (4 * len(weight)))


def head_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy (nats) of ``hidden`` [..., d] through a head ``weight`` [vocab, d], for ``targets`` [...]."""
    rows = hidden.flatten(0, -2)
    return HeadCrossEntropy.apply(rows, weight, targets.flatten())  # type: ignore[no-untyped-call, no-any-return]
