"""Padded attention computes the softmax of masked scores, with and without gradients."""

import pytest
import torch
from relora_study.model.kernels import attention
from relora_study.model.kernels.attention import padded_attention
from torch._subclasses.fake_tensor import FakeTensorMode


def operands(head_dim):
    return [torch.randn(2, heads, 9, head_dim, dtype=torch.float64, requires_grad=True) for heads in (6, 2, 2)]


@pytest.mark.parametrize("head_dim", [2, 8, 16, 32])
def test_attention_equals_softmax_of_masked_scores(head_dim, reference):
    plain, (query, key, value) = reference(attention), operands(head_dim)
    expected = plain.attention(query, key, value, 0.3, plain.causal_mask(9))
    found, _ = padded_attention(torch.nn.Identity(), query, key, value, None, scaling=0.3)
    torch.testing.assert_close(found, expected)
    unscaled = plain.attention(query, key, value, head_dim**-0.5, plain.causal_mask(9))
    torch.testing.assert_close(padded_attention(torch.nn.Identity(), query, key, value, None)[0], unscaled)
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


@pytest.mark.parametrize("head_dim", [6, 8])
def test_what_a_gpu_gets_in_float32_has_the_references_scores(monkeypatch, head_dim, reference):
    plain, (query, key, value) = reference(attention), operands(head_dim)
    shaped, shapes = attention._shaped_for_a_kernel, []

    def as_on_a_gpu(parts, _):
        given = shaped(parts, "cuda")
        shapes.extend(part.shape for part in given)
        return given

    monkeypatch.setattr(attention, "_shaped_for_a_kernel", as_on_a_gpu)
    found, _ = padded_attention(torch.nn.Identity(), query, key, value, None)
    expected = plain.attention(query, key, value, head_dim**-0.5, plain.causal_mask(9))
    torch.testing.assert_close(found, expected)
    assert shapes == [(2, 6, 9, 8)] * 3  # of as many heads each, and of a multiple of eight numbers


def on_a_fake_gpu(monkeypatch, dtype, autocast=False):
    """What the attention is called with on a fake GPU: the shape of the keys, and whether queries are grouped."""
    calls = []

    def recording(query, key, value, **options):
        calls.append((query.dtype, tuple(key.shape), options["enable_gqa"], options["is_causal"]))
        return torch.empty(query.shape)  # a fake GPU's tensors cannot be cut

    monkeypatch.setattr(attention.functional, "scaled_dot_product_attention", recording)
    # `torch.autocast` switches itself off where there is no GPU.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: autocast and kind == "cuda")
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.bfloat16)
    with FakeTensorMode():
        parts = (torch.empty(2, heads, 9, 8, dtype=dtype, device="cuda") for heads in (6, 2, 2))
        padded_attention(torch.nn.Identity(), *parts, None, scaling=0.3)
    return calls[0]


def test_a_gpu_gets_small_heads_as_they_are_and_float32_without_groups(monkeypatch):
    """Flash attention takes half types and grouped queries; the memory-efficient kernel float32, and no groups."""
    flash, efficient = (torch.bfloat16, (2, 2, 9, 8), True, True), (torch.float32, (2, 6, 9, 8), False, True)
    assert on_a_fake_gpu(monkeypatch, torch.bfloat16) == flash
    assert on_a_fake_gpu(monkeypatch, torch.float32) == efficient
    assert on_a_fake_gpu(monkeypatch, torch.float32, autocast=True) == flash
