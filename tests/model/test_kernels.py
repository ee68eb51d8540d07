"""The faster operations compute what PyTorch's and transformers' plain ones do."""

import pytest
import torch
from relora_study.model import loss as loss_module
from relora_study.model.attention import padded_attention
from relora_study.model.build import build_model
from relora_study.model.loss import head_cross_entropy
from relora_study.model.relora import ReLoRALinear, _keep_mask
from relora_study.model.rms_norm import RMSNorm
from relora_study.model.swiglu import SwiGLU
from torch.nn import functional
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm


@pytest.mark.parametrize("chunk_rows", [7, 64, 1000])
def test_the_chunked_loss_and_its_gradients_are_the_plain_ones(monkeypatch, chunk_rows):
    monkeypatch.setattr(loss_module, "_chunk_rows", lambda hidden, weight: chunk_rows)
    hidden = torch.randn(3, 30, 12, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(50, 12, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(50, (3, 30))
    plain = functional.cross_entropy(functional.linear(hidden, weight).flatten(0, 1), targets.flatten())
    ours = head_cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(ours, plain)
    expected = torch.autograd.grad(0.25 * plain, (hidden, weight))
    torch.testing.assert_close(torch.autograd.grad(0.25 * ours, (hidden, weight)), expected)


@pytest.mark.parametrize("head_dim", [2, 8, 16, 32])
def test_attention_equals_softmax_of_masked_scores(head_dim):
    query, key, value = (torch.randn(2, heads, 9, head_dim, requires_grad=True) for heads in (6, 2, 2))
    scores = query @ key.repeat_interleave(3, 1).mT * 0.3
    weights = scores.masked_fill(torch.ones(9, 9).triu(1).bool(), -torch.inf).softmax(-1)
    expected = (weights @ value.repeat_interleave(3, 1)).transpose(1, 2)
    found, _ = padded_attention(torch.nn.Identity(), query, key, value, None, scaling=0.3)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    gradients = [torch.autograd.grad(out, (query, key, value), upstream) for out in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head_dim", [2, 16])
def test_attention_under_a_mask_is_the_same_with_and_without_gradients(head_dim):
    query, key, value = (torch.randn(2, heads, 9, head_dim) for heads in (6, 2, 2))
    seen = torch.rand(2, 1, 9, 9).gt(0.5).logical_or(torch.eye(9).bool())
    mask = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)
    scores = query @ key.repeat_interleave(3, 1).mT * 0.3
    expected = ((scores + mask).softmax(-1) @ value.repeat_interleave(3, 1)).transpose(1, 2)
    for with_gradients in (True, False):
        for given in (mask, seen):  # as what is added, or as what is seen
            with torch.set_grad_enabled(with_gradients):
                found, _ = padded_attention(torch.nn.Identity(), query, key, value, given, scaling=0.3)
            torch.testing.assert_close(found, expected)


def test_swiglu_and_its_gradients_are_transformers():
    theirs = LlamaMLP(LlamaConfig(hidden_size=6, intermediate_size=10, num_attention_heads=1)).double()
    ours = SwiGLU(theirs.gate_proj, theirs.up_proj, theirs.down_proj)
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ours(x), theirs(x))
    upstream, inputs = torch.randn(2, 5, 6, dtype=torch.float64), (x, *theirs.parameters())
    gradients = [torch.autograd.grad(layer(x), inputs, upstream) for layer in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_the_norm_and_its_gradients_are_transformers():
    theirs = LlamaRMSNorm(6, eps=1e-2).double()
    torch.nn.init.normal_(theirs.weight)
    ours = RMSNorm(theirs.weight, 1e-2)
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ours(x), theirs(x).double(), rtol=1e-6, atol=1e-6)  # theirs computes in float32
    upstream, inputs = torch.randn(2, 5, 6, dtype=torch.float64), (x, ours.weight)
    gradients = [torch.autograd.grad(layer(x), inputs, upstream) for layer in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)


def test_a_layer_keeps_few_activations(make_cell):
    cell = make_cell("full")
    model = build_model(cell.size, cell.model, 0)
    kept: dict[int, int] = {}

    def pack(tensor):
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    weights = {parameter.data_ptr() for parameter in model.parameters()}
    x = torch.randn(1, 16, cell.size.d_model, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.model.layers[0].mlp(model.model.layers[0].post_attention_layernorm(x))
    narrow, wide = 16 * cell.size.d_model, 16 * cell.size.intermediate_size
    assert sum(kept.values()) <= 2 * narrow + 2 * wide + 16  # transformers' own: 3 narrow and 5 wide


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_adapted_layer_and_its_gradients_are_autograds(make_cell, dropout):
    method = make_cell("relora", dropout=dropout).method
    layer = ReLoRALinear(torch.randn(20, 12), method).double()
    torch.nn.init.normal_(layer.B)
    x = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(3)
    found = layer(x)
    torch.manual_seed(3)
    keep = _keep_mask(x.detach().flatten(0, 1), dropout).view(x.shape) if dropout else torch.ones_like(x)
    thinned = x * keep / (1 - dropout)
    expected = x @ layer.weight.T + layer.scale * thinned @ layer.A.T @ layer.B.T
    torch.testing.assert_close(found, expected)
    upstream, inputs = torch.randn_like(expected), (x, layer.A, layer.B)
    gradients = [torch.autograd.grad(out, inputs, upstream) for out in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_the_dropout_mask_keeps_its_share_independently():
    torch.manual_seed(0)
    keep = _keep_mask(torch.empty(4_000_001), 0.1)
    assert keep.double().mean().item() == pytest.approx(0.9, abs=6e-4)  # four standard errors
    fields = keep[:4_000_000].view(-1, 4).double()
    assert (torch.corrcoef(fields.T) - torch.eye(4)).abs().max() < 5e-3
    assert not torch.equal(keep, _keep_mask(torch.empty(4_000_001), 0.1))


def test_the_norm_sums_in_float32_under_autocast():
    x = torch.randn(64, 96) * 3
    norm = RMSNorm(torch.nn.Parameter(torch.rand(96)), 1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = norm(x)
    assert torch.equal(under, norm(x))
