"""RMSNorm (Zhang and Sennrich 2019) that keeps its input and a number a row for the backward pass, and no copies.

Plain reference::

    def rms_norm(x, weight, eps):
        return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight
"""

from typing import Any

import torch
from torch import Tensor, nn


class _Normalized(torch.autograd.Function):
    """``x / rms(x) * weight`` over the last dimension."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """The normalised ``x`` [n, d], in its own type; the rest is computed at least in float32."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        with torch.autocast(x.device.type, enabled=False):  # it would sum the squares in bfloat16
            scale = (torch.linalg.vecdot(wide, wide) / wide.shape[-1] + eps).rsqrt_().unsqueeze(-1)
        ctx.save_for_backward(x, weight, scale)
        mapped: Tensor = (wide * scale).mul_(weight)
        return mapped.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        """With s = 1 / rms(x) and h = gradient * weight: dx = s (h - x s^2 mean(h x)), dw = sum of gradient x s."""
        x, weight, scale = ctx.saved_tensors
        normalized = x * scale
        gradient = upstream[0].to(normalized.dtype)
        weight_gradient = (gradient * normalized).sum(0)
        scaled = gradient * weight
        shared = torch.linalg.vecdot(scaled, normalized).div_(x.shape[-1]).unsqueeze(-1)
        x_gradient = scaled.sub_(normalized.mul_(shared)).mul_(scale)
        return x_gradient.to(x.dtype), weight_gradient.to(weight.dtype), None


class RMSNorm(nn.Module):
    """Transformers' Llama norm, with its weight under its name."""

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        """Take ``weight`` [d] over."""
        super().__init__()
        self.weight, self.eps = weight, eps

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` [..., d] to the shape of ``x``."""
        mapped = _Normalized.apply(x.flatten(0, -2), self.weight, self.eps)  # type: ignore[no-untyped-call]
        return mapped.view(x.shape)  # type: ignore[no-any-return]
