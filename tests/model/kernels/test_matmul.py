"""Products by oneDNN and by PyTorch's usual library are the same to float32's rounding; what has no oneDNN goes on."""

import pytest
import torch
from relora_study.model.kernels import linear as linear_module
from relora_study.model.kernels import matmul as module
from relora_study.model.kernels.linear import Linear
from relora_study.model.kernels.matmul import fits_onednn, matmul, matmul_transposed
from relora_study.model.relora import ReLoRALinear
from torch.autograd import grad
from torch.nn import functional


def close(found, expected):
    """Whether float32 ``found`` is float64 ``expected`` to within rounding of sums of about a hundred terms."""
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


def all_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        close(one, other)


def in_float64(*inputs):
    return [each.detach().double().requires_grad_() for each in inputs]


@pytest.mark.parametrize(("k", "m", "n"), [(70, 33, 12), (70, 12, 33), (1, 5, 4)])
def test_products_and_transposed_ones_with_and_without_a_summand(either_library, k, m, n):
    a, b, plus = torch.randn(m, k), torch.randn(k, n), torch.randn(m, n)
    product = a.double() @ b.double()
    close(matmul(a, b), product)
    close(matmul(a, b.mT.contiguous().mT), product)
    close(matmul(a, b, plus.clone()), product + plus)
    close(matmul_transposed(a.mT.contiguous(), b), product)
    close(matmul_transposed(a.mT.contiguous(), b, plus.clone()), product + plus)
    close(matmul_transposed(a.mT.contiguous(), b, plus.mT.contiguous().mT), product + plus)


def test_the_products_are_the_references(either_library, reference):
    plain, a, b, plus = reference(module), *(torch.randn(*shape) for shape in [(7, 5), (5, 9), (7, 9)])
    close(matmul(a, b, plus.clone()), plain.matmul(a.double(), b.double(), plus.double()))
    close(matmul(a, b), plain.matmul(a.double(), b.double()))
    close(matmul_transposed(a.mT, b), plain.matmul_transposed(a.mT.double(), b.double()))


def test_linear_and_its_gradients_are_pytorchs(either_library, reference):
    x, weight = torch.randn(3, 7, 20, requires_grad=True), torch.nn.Parameter(torch.randn(50, 20))
    layer, upstream = Linear(weight), torch.randn(3, 7, 50)
    wide = in_float64(x, weight)
    found, expected = layer(x), functional.linear(*wide)
    close(found, expected)
    close(found, reference(linear_module).linear(*wide))
    all_close(grad(found, (x, weight), upstream), grad(expected, wide, upstream.double()))
    assert [(name, each is weight) for name, each in layer.named_parameters()] == [("weight", True)]


def test_a_frozen_weight_gets_no_gradient(either_library):
    x, layer = torch.randn(4, 20, requires_grad=True), Linear(torch.nn.Parameter(torch.randn(50, 20)))
    layer.weight.requires_grad_(False)
    layer(x).sum().backward()
    assert layer.weight.grad is None and x.grad is not None


def test_onednn_takes_float32_alone_and_nothing_under_autocast(onednn, monkeypatch):
    x = torch.randn(2, 3)
    assert fits_onednn(x, x) and not fits_onednn(x, x.double()) and not fits_onednn(x.bfloat16(), x.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Linear(torch.nn.Parameter(x))(x).dtype == torch.bfloat16
    monkeypatch.setattr(module, "USE_ONEDNN", False)
    assert not fits_onednn(x, x)


@pytest.mark.parametrize("adapted", [False, True])
def test_a_compiler_is_left_its_own_products(onednn, make_cell, adapted):
    weight, x, graphs = torch.nn.Parameter(torch.randn(50, 20)), torch.randn(9, 20), []
    layer = ReLoRALinear(weight, make_cell("relora", dropout=0.0).method) if adapted else Linear(weight)

    def backend(graph, _):
        graphs.append(graph.print_readable(print_output=False))
        return graph.forward

    close(torch.compile(layer, backend=backend)(x), x.double() @ weight.double().mT)
    assert graphs and not any("_linear_pointwise" in graph for graph in graphs)
