"""The norm computes transformers', and sums in float32 under autocast."""

import torch
from relora_study.model.kernels import rms_norm
from relora_study.model.kernels.rms_norm import RMSNorm
from torch.autograd import grad
from transformers.models.llama.modeling_llama import LlamaRMSNorm


def test_the_norm_and_its_gradients_are_transformers():
    theirs = LlamaRMSNorm(6, eps=1e-2).double()
    torch.nn.init.normal_(theirs.weight)
    ours = RMSNorm(theirs.weight, 1e-2)
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ours(x), theirs(x).double(), rtol=1e-6, atol=1e-6)  # theirs computes in float32
    upstream, inputs = torch.randn(2, 5, 6, dtype=torch.float64), (x, ours.weight)
    gradients = [torch.autograd.grad(layer(x), inputs, upstream) for layer in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)


def test_the_norm_and_its_gradients_are_the_references_in_float64(reference):
    layer = RMSNorm(torch.nn.Parameter(torch.randn(6, dtype=torch.float64)), 1e-2)
    x, upstream = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True), torch.randn(2, 5, 6).double()
    ours, plain = layer(x), reference(rms_norm).rms_norm(x, layer.weight, 1e-2)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(*(grad(out, (x, layer.weight), upstream) for out in (ours, plain)))


def test_the_norm_sums_in_float32_under_autocast():
    x = torch.randn(64, 96) * 3
    norm = RMSNorm(torch.nn.Parameter(torch.rand(96)), 1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = norm(x)
    assert torch.equal(under, norm(x))
