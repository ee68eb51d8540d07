"""Padded attention computes the softmax of masked scores, with and without gradients."""

import pytest
import torch
from relora_study.model.kernels import attention
from relora_study.model.kernels.attention import padded_attention


def operands(head_dim):
    return [torch.randn(2, heads, 9, head_dim, dtype=torch.float64, requires_grad=True) for heads in (6, 2, 2)]


@pytest.mark.parametrize("head_dim", [2, 8, 16, 32])
def test_attention_equals_softmax_of_masked_scores(head_dim, reference):
    plain, (query, key, value) = reference(attention), operands(head_dim)
    expected = plain.attention(query, key, value, 0.3, plain.causal_mask(9))
    found, _ = padded_attention(torch.nn.Identity(), query, key, value, None, scaling=0.3)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    gradients = [torch.autograd.grad(out, (query, key, value), upstream) for out in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("head_dim", [2, 16])
def test_attention_under_a_mask_is_alike_with_and_without_gradients(head_dim, reference):
    query, key, value = (part.float() for part in operands(head_dim))
    seen = torch.rand(2, 1, 9, 9).gt(0.5).logical_or(torch.eye(9).bool())
    mask = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)
    expected = reference(attention).attention(query, key, value, 0.3, mask)
    for with_gradients in (True, False):
        for given in (mask, seen):  # as what is added, or as what is seen
            with torch.set_grad_enabled(with_gradients):
                found, _ = padded_attention(torch.nn.Identity(), query, key, value, given, scaling=0.3)
            torch.testing.assert_close(found, expected)
