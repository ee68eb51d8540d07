"""Multiply the value and output projections of attention heads, in the authors' order and in the field's.

All functions are batched over layers, and take the projections as `torch.nn.Linear` stores them:
``value`` is [layers, groups * head_dim, d_model] and ``output`` [layers, d_model, heads * head_dim].
Head h uses the values of group h // (heads / groups), as in `transformers`.
"""

import torch
from torch import Tensor


def head_slices(value: Tensor, output: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cut out each head: values [layers, heads, head_dim, d_model], outputs [layers, heads, d_model, head_dim]."""
    layers, d_model = output.shape[:2]
    outputs = output.reshape(layers, d_model, -1, head_dim).movedim(-2, -3)
    groups = value.reshape(layers, -1, head_dim, d_model)
    values = groups.repeat_interleave(outputs.shape[-3] // groups.shape[-3], dim=-3)
    return values, outputs


def authors_ov(value: Tensor, output: Tensor, head_dim: int) -> Tensor:
    """Return the paper's "OV circuit", V_g O_h of every head side by side: [layers, head_dim, heads * head_dim].

    A head gives a block of head_dim x head_dim. The field's OV circuit multiplies in the opposite order.
    """
    values, outputs = head_slices(value, output, head_dim)
    return torch.cat((values @ outputs).unbind(-3), dim=-1)


def ov_circuit_factors(value: Tensor, output: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Return two factors of the field's OV circuit W_O^h W_V^g of every head (Elhage et al. 2021), d_model x d_model.

    The left factor is [layers, heads, d_model, head_dim], and the right factor [layers, heads, head_dim, d_model].
    """
    values, outputs = head_slices(value, output, head_dim)
    return outputs, values
