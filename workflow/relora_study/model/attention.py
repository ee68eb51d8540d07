"""Causal attention for small heads, registered with transformers by name, so that the model stays transformers' own."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "padded_sdpa"
SMALLEST_HEAD = 16  # below it, torch's CPU kernel takes about twice the time it takes at 16 (benchmarks/README.md)


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
    """PyTorch's fused attention, with heads of fewer than 16 numbers filled up with zeros, which changes no score.

    ``query`` is [batch, heads, length, head_dim], ``key`` and ``value`` [batch, key-value heads, length, head_dim];
    the result is [batch, length, heads, head_dim], and no attention weights. Keys and values are not repeated.
    """
    head_dim = query.shape[-1]
    if head_dim < SMALLEST_HEAD:
        query, key, value = (functional.pad(part, (0, SMALLEST_HEAD - head_dim)) for part in (query, key, value))
    mixed = functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        dropout_p=dropout,
        is_causal=attention_mask is None and query.shape[2] > 1,
        scale=scaling,
        enable_gqa=True,
    )
    return mixed[..., :head_dim].transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, padded_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
