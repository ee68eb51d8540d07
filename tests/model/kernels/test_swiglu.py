"""SwiGLU keeps the pair of activations and no product, and computes what the plain layer computes."""

import pytest
import torch
from relora_study.model.build import build_model
from relora_study.model.kernels import linear, swiglu
from relora_study.model.kernels.linear import Linear
from relora_study.model.kernels.swiglu import Gated, SwiGLU
from relora_study.model.relora import ReLoRALinear
from torch import nn
from torch.autograd import grad
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP


def our_mlp(kind, make_cell):
    """SwiGLU with a last projection of a kind; the first two are plain."""
    projections = [nn.Linear(*shape, bias=False, dtype=torch.float64) for shape in [(6, 10), (6, 10), (10, 6)]]
    if kind == "ours":
        projections[2] = Linear(projections[2].weight)
    if kind == "adapted":
        projections[2] = ReLoRALinear(projections[2].weight, make_cell("relora").method)
        nn.init.normal_(projections[2].B)
    return SwiGLU(*projections)


def gradients_of(layer, x):
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    torch.manual_seed(5)  # dropout's
    out = layer(x)
    return [out, *grad(out, [x, *trained], torch.ones_like(out).cumsum(0))]


@pytest.mark.parametrize("wrap", [lambda weight: weight, Linear])
def test_swiglu_and_its_gradients_are_transformers_and_the_reference(wrap, reference):
    theirs = LlamaMLP(LlamaConfig(hidden_size=6, intermediate_size=10, num_attention_heads=1)).double()
    last = theirs.down_proj if wrap is not Linear else Linear(theirs.down_proj.weight)
    ours = SwiGLU(theirs.gate_proj, theirs.up_proj, last)
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    plain = reference(swiglu).swiglu(x, *theirs.parameters())
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours(x), plain)
    upstream, inputs = torch.randn(2, 5, 6, dtype=torch.float64), (x, *theirs.parameters())
    gradients = [grad(out, inputs, upstream) for out in (ours(x), theirs(x), plain)]
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(gradients[0], gradients[2])


@pytest.mark.parametrize("kind", ["ours", "adapted"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_is_computed_again_is_bit_for_bit_what_was_kept(kind, dtype, make_cell):
    layer, x = our_mlp(kind, make_cell).to(dtype), torch.randn(2, 5, 6, dtype=dtype, requires_grad=True)
    again = gradients_of(layer, x)
    layer.computes_again = False
    for ours, kept in zip(again, gradients_of(layer, x), strict=True):
        assert torch.equal(ours, kept)


@pytest.mark.parametrize("kind", ["ours", "adapted"])
def test_the_product_is_not_kept_and_a_look_alike_is_not_taken_for_it(kind, make_cell):
    """Ownership is explicit: whatever a projection does with tensors at the product's address, nothing is confused."""
    layer, x = our_mlp(kind, make_cell), torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        layer(x)
    product = swiglu.activation(layer.gate_proj(x), layer.up_proj(x)).flatten()
    assert any(tensor.numel() == product.numel() for tensor in kept), "the pair is kept"
    assert not any(torch.equal(tensor.flatten(), product) for tensor in kept if tensor.numel() == product.numel())


class Peculiar(nn.Linear):
    """A projection that keeps a transposed view of its input: its address and size, and other strides."""

    def forward(self, x):
        return (x.mT * self.weight.sum()).exp().mT @ self.weight.mT + x.mT.square().mT @ self.weight.mT


def test_a_projection_that_keeps_views_of_its_input_gets_its_own_gradients():
    layer, x = SwiGLU(nn.Linear(6, 10), nn.Linear(6, 10), Peculiar(10, 6, bias=False)), torch.randn(5, 6)
    layer, x = layer.double(), x.double().requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))
    ours = gradients_of(layer, x)
    layer.computes_again = False
    assert all(map(torch.equal, ours, gradients_of(layer, x)))


@pytest.mark.parametrize("frozen", [("gate", "up"), ("weight",), ("gate",)])
def test_what_needs_no_gradient_gets_none(frozen):
    shapes = {"gate": (4, 9), "up": (4, 9), "weight": (5, 9)}
    named = {name: nn.Parameter(torch.randn(*shape), name not in frozen) for name, shape in shapes.items()}
    Linear(named["weight"])(Gated(named["gate"], named["up"])).sum().backward()
    assert {name for name, tensor in named.items() if tensor.grad is None} == set(frozen)


def test_a_gated_input_is_the_references(reference):
    gate, up, weight = (torch.randn(*shape, dtype=torch.float64) for shape in [(2, 4, 9), (2, 4, 9), (5, 9)])
    torch.testing.assert_close(
        Linear(nn.Parameter(weight))(Gated(gate, up)), reference(linear).gated_linear(gate, up, weight)
    )


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
