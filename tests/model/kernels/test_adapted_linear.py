"""The adapted layer is the sum of its two maps, in every precision, on either library of products."""

import pytest
import torch
from relora_study.model.kernels import adapted_linear as module
from relora_study.model.kernels.adapted_linear import adapted_linear
from relora_study.model.kernels.dropout import keep_mask
from relora_study.model.kernels.swiglu import Gated, activation
from relora_study.model.relora import ReLoRALinear
from torch.autograd import grad


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_adapted_layer_and_its_gradients_are_autograds(make_cell, dropout):
    method = make_cell("relora", dropout=dropout).method
    layer = ReLoRALinear(torch.randn(20, 12), method).double()
    torch.nn.init.normal_(layer.B)
    x = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(3)
    found = layer(x)
    torch.manual_seed(3)
    keep = keep_mask(x.detach().flatten(0, 1), dropout).view(x.shape) if dropout else torch.ones_like(x)
    thinned = x * keep / (1 - dropout)
    expected = x @ layer.weight.T + layer.scale * thinned @ layer.A.T @ layer.B.T
    torch.testing.assert_close(found, expected)
    upstream, inputs = torch.randn_like(expected), (x, layer.A, layer.B)
    gradients = [torch.autograd.grad(out, inputs, upstream) for out in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("scale", [2.0, torch.tensor(1.5, dtype=torch.float64, requires_grad=True)])
@pytest.mark.parametrize("gated", [False, True])
def test_layer_and_gradients_are_the_references(scale, gated, reference):
    shapes = [(2, 5, 12), (2, 5, 12), (20, 12), (4, 12), (20, 4)]
    gate, up, weight, a, b = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    x = Gated(gate, up) if gated else gate
    ours = adapted_linear(x, weight.detach(), a, b, scale)
    plain = reference(module).adapted_linear(activation(gate, up if gated else None), weight.detach(), a, b, scale)
    torch.testing.assert_close(ours, plain)
    inputs = [gate, *[up] * gated, a, b, *([scale] if isinstance(scale, torch.Tensor) else [])]
    upstream = torch.randn_like(plain)
    torch.testing.assert_close(*(grad(out, inputs, upstream) for out in (ours, plain)))


def test_the_adapted_layer_in_float32_is_the_one_in_float64(either_library, make_cell):
    layer = ReLoRALinear(torch.randn(50, 20), make_cell("relora", dropout=0.0).method)
    torch.nn.init.normal_(layer.B)
    x, upstream = torch.randn(9, 20, requires_grad=True), torch.randn(9, 50)
    found = [layer(x), *grad(layer(x), (x, layer.A, layer.B), upstream)]
    layer, wide = layer.double(), x.detach().double().requires_grad_()
    exact = [layer(wide), *grad(layer(wide), (wide, layer.A, layer.B), upstream.double())]
    for ours, expected in zip(found, exact, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-4)
