"""Causal attention with grouped queries, which transformers' decoders find by a registered name.

Plain reference::

    def attention(query, key, value, scaling, mask):
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        weights = (scaling * query @ key.mT + mask).softmax(-1)
        return (weights @ value).transpose(1, 2)

    def causal_mask(length):
        return torch.full((length, length), -torch.inf).triu(1)
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from .matmul import as_autocast

# No mask function is registered: transformers' would make the host wait for the GPU, and mask compiled graphs.
NAME = "padded_sdpa"
SMALLEST_HEAD = 16  # narrower heads take torch's CPU kernel about twice the time (benchmarks/README.md)


def padded_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Call PyTorch's fused attention, with operands in a shape for which the device has a fast kernel.

    ``query`` is [batch, heads, length, head_dim], ``key`` and ``value`` are [batch, key-value heads, length, head_dim].
    The result is [batch, length, heads, head_dim], and None for the attention weights. An ``attention_mask``
    [batch, 1, length, length] holds numbers to add to the scores, or booleans that are true where a score counts.
    Without a mask, attention is causal. Transformers drops masks of padding for an attention that registers no mask
    function, so callers pad on the right, where causal attention does not look.
    """
    without_gradients = query.device.type == "cpu" and not torch.is_grad_enabled()
    if without_gradients and attention_mask is not None and attention_mask.is_floating_point():
        return _masked_attention(query, key, value, attention_mask, scaling), None
    head_dim = query.shape[-1]
    scaling = scaling or head_dim**-0.5
    query, key, value = _shaped_for_a_kernel(as_autocast(query, key, value), query.device.type)
    mixed = functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        dropout_p=dropout,
        is_causal=attention_mask is None and query.shape[2] > 1,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return mixed[..., :head_dim].transpose(1, 2).contiguous(), None


def _shaped_for_a_kernel(operands: tuple[Tensor, ...], kind: str) -> tuple[Tensor, ...]:
    """Reshape query, key and value for a fast kernel of a device of type ``kind``, without changing the scores.

    A CPU kernel is fast for heads of 16 numbers or more, so zeros fill narrower ones. A GPU's flash attention takes
    16-bit types as they are. In float32, a GPU has only the memory-efficient kernel, which needs repeated keys and
    values and a head_dim that is a multiple of 8. PyTorch's fallback would hold the scores of all pairs of tokens.
    """
    query, key, value = operands
    head_dim = query.shape[-1]
    if kind == "cpu":
        return _with_zeros(max(0, SMALLEST_HEAD - head_dim), *operands)
    if query.dtype.itemsize < 4:
        return operands
    groups = query.shape[1] // key.shape[1]
    repeated = (part.repeat_interleave(groups, 1) for part in (key, value))
    return _with_zeros(-head_dim % 8, query, *repeated)


def _with_zeros(missing: int, *parts: Tensor) -> tuple[Tensor, ...]:
    return tuple(functional.pad(part, (0, missing)) for part in parts) if missing else parts


def _masked_attention(
    query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, scaling: float | None
) -> Tensor:
    """Compute attention by plain products, which a CPU does faster for short masked rows (benchmarks/README.md)."""
    batch, heads, length, head_dim = query.shape
    groups = key.shape[1]
    grouped = (query * (scaling or head_dim**-0.5)).reshape(batch, groups, -1, head_dim)
    scores = (grouped @ key.mT).view(batch, heads, length, length).add_(attention_mask)
    weights = scores.softmax(-1).view(batch, groups, -1, length)
    return (weights @ value).view(batch, heads, length, head_dim).transpose(1, 2).contiguous()


AttentionInterface.register(NAME, padded_attention)
