"""Muon: a step whose singular values are equal, in the singular directions of the momentum (Jordan et al. 2024).

torch's own optimizer does it, with Nesterov's momentum and five Newton-Schulz iterations in bfloat16. Its step is
scaled by 0.2 sqrt(max(out, in)), which gives it the size of AdamW's (Liu et al. 2025, arXiv 2502.16982, section 2.2),
so that one learning rate and one weight decay serve it and the AdamW beside it.
"""

from collections.abc import Sequence

import torch

from ...config import Method
from . import Matrix, Recipe


def muon(matrices: Sequence[Matrix], method: Method, recipe: Recipe, seed: int) -> torch.optim.Muon:
    """Make torch's Muon of ``matrices``; of a pair, A and B are stepped each by itself."""
    parts = [part for matrix in matrices for part in matrix]
    of_adamw = {"lr": recipe["lr"], "weight_decay": recipe["weight_decay"]}
    return torch.optim.Muon(parts, momentum=method.momentum, adjust_lr_fn="match_rms_adamw", **of_adamw)
