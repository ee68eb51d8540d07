"""Draw the mask of dropout; on a CPU, one random number serves four entries.

Plain reference::

    def keep_mask(like, dropout):
        return torch.rand_like(like) >= dropout
"""

import torch
from torch import Tensor


def keep_mask(like: Tensor, dropout: float) -> Tensor:
    """Draw a boolean mask of the shape of ``like``, true with probability 1 - ``dropout`` to within 2^-16.

    On a CPU, one 64-bit draw serves four entries: the draws of `torch.nn.Dropout` cost a third of an adapted layer.
    torch.compile cannot trace that. So a compiled layer, and a GPU, draw one number for each entry. The number is a
    float32 even for a bfloat16 ``like``, whose 8 bits would round the probability.
    """
    if like.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.rand_like(like, dtype=torch.float32) >= dropout
    draws = torch.empty(-(-like.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    return (draws.view(torch.int16)[: like.numel()] >= round(dropout * 2**16) - 2**15).view(like.shape)
