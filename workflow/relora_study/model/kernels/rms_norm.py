"""RMSNorm (Zhang and Sennrich 2019) that keeps only its input and one number a row for the backward pass.

Plain reference::

    def rms_norm(x, weight, eps):
        return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight
"""

from typing import Any

import torch
from torch import Tensor, nn

from .matmul import multiply


class _Normalized(torch.autograd.Function):
    """``x / rms(x) * weight`` over the last dimension."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Return the normalised ``x`` [n, d] in the type of ``x``, computed in float32 or wider."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        with torch.autocast(x.device.type, enabled=False):  # autocast would sum the squares in bfloat16
            scale = (torch.linalg.vecdot(wide, wide) / wide.shape[-1] + eps).rsqrt_().unsqueeze(-1)
        ctx.save_for_backward(x, weight, scale)
        mapped = multiply(wide * scale, weight)
        return mapped if mapped.dtype == x.dtype else mapped.to(x.dtype)  # `multiply` says why

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return dx = s (h - x s^2 mean(h x)) and dw = sum(g x s), with s = 1 / rms(x), gradient g and h = g weight."""
        x, weight, scale = ctx.saved_tensors
        normalized = x * scale
        gradient = upstream[0].to(normalized.dtype)
        weight_gradient = (gradient * normalized).sum(0)
        scaled = gradient * weight
        shared = torch.linalg.vecdot(scaled, normalized).div_(x.shape[-1]).unsqueeze(-1)
        x_gradient = scaled.sub_(normalized.mul_(shared)).mul_(scale)
        return x_gradient.to(x.dtype), weight_gradient.to(weight.dtype), None


class RMSNorm(nn.Module):
    """Replaces transformers' LlamaRMSNorm; its parameter has the same name, so a state loads into either."""

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        """Make a norm of ``weight`` [d]."""
        super().__init__()
        self.weight, self.eps = weight, eps

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` [..., d] to the shape of ``x``."""
        mapped = _Normalized.apply(x.flatten(0, -2), self.weight, self.eps)  # type: ignore[no-untyped-call]
        return mapped.view(x.shape)  # type: ignore[no-any-return]
