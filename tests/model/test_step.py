"""What a training step asks of a GPU, seen without one: the operations that it dispatches."""

import pytest
import torch
from relora_study.model.kernels import cross_entropy
from relora_study.train.loop import take_step
from relora_study.train.run import start
from torch import nn
from torch._dynamo.backends.registry import lookup_backend
from torch.utils._python_dispatch import TorchDispatchMode

CPU, aten = torch.device("cpu"), torch.ops.aten
PRODUCTS = {
    aten.mm: 0,
    aten.bmm: 0,
    aten.addmm: 1,
    aten.addmm_: 1,
    aten.baddbmm: 1,
}  # and the place of the first factor


def a_run(make_cell, method, switches=None, **runtime):
    cell = make_cell(method, train={"micro_batch_size": 2}, **(switches or {}))
    return start(cell.model_copy(update={"runtime": cell.runtime.model_copy(update=runtime)}), CPU)


def a_batch():
    return torch.randint(300, (4, 17), generator=torch.Generator().manual_seed(0))


class FactorTypes(TorchDispatchMode):
    """Records the types of both factors of every product of matrices; sums of a row's products are none."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        first = PRODUCTS.get(func.overloadpacket)
        if first is not None:
            a, b = args[first : first + 2]
            if min(*a.shape[-2:], b.shape[-1]) > 1:
                self.seen.append((a.dtype, b.dtype))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", ["full", "relora"])
def test_no_product_of_a_step_in_bfloat16_is_float32_by_float32(make_cell, method):
    run = a_run(make_cell, method, precision="bfloat16")
    with FactorTypes() as types:
        take_step(run, a_batch(), 1)
    assert len(types.seen) > 50 and set(types.seen) == {(torch.bfloat16, torch.bfloat16)}


class NoHostSync(TorchDispatchMode):
    """Raises where the host reads a number, for which it would have to wait for a GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket is not aten._local_scalar_dense, "the host reads a number in the middle of a step"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["full", "relora", "relora_zero2"])
def test_the_host_waits_for_no_number_in_a_step(make_cell, method, precision):
    run = a_run(make_cell, method, precision=precision)
    with NoHostSync():
        take_step(run, a_batch(), 1)
        take_step(run, a_batch(), 2)


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that torch.compile makes of the layers, each run without being translated for a processor."""
    recorded, backend, compile_module = [], lookup_backend("aot_eager"), nn.Module.compile

    def recording(graph, inputs):
        recorded.append(graph)
        return backend(graph, inputs)

    torch._dynamo.reset()
    monkeypatch.setattr(nn.Module, "compile", lambda module, **options: compile_module(module, backend=recording))
    monkeypatch.setattr(cross_entropy, "_softmax", lambda fused: cross_entropy._loss_and_gradient)
    yield recorded
    torch._dynamo.reset()


def calls(graph, name):
    return [node for node in graph.graph.nodes if node.op == "call_function" and name in str(node.target)]


@pytest.mark.parametrize(("method", "dropout"), [("full", {}), ("relora", {"dropout": 0.1})])
def test_compiled_layers_are_one_graph_and_their_attention_has_no_mask(make_cell, graphs, method, dropout):
    run = a_run(make_cell, method, dropout, compile=True)
    take_step(run, a_batch(), 1)
    (graph,) = graphs  # of all layers, which are alike
    (attention,) = calls(graph, "scaled_dot_product_attention")
    assert attention.kwargs["attn_mask"] is None and attention.kwargs["is_causal"] is True
    assert len(calls(graph, "rand_like")) == (7 if dropout else 0)


def may_be_an_input(node):
    """Whether the operation of ``node`` may give back its first factor: in place, or a conversion that is none."""
    return node.op != "call_function" and (str(node.target).endswith("_") or node.target in ("to", "type"))


@pytest.mark.parametrize("method", ["full", "relora"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_compiled_autograd_function_returns_what_it_changed_in_place(make_cell, graphs, method, precision):
    """PyTorch 2.11 would compile a backward pass without its gradients."""
    run = a_run(make_cell, method, compile=True, precision=precision)
    take_step(run, a_batch(), 1)
    (graph,) = graphs
    functions = [node.args[0] for node in graph.graph.nodes if "autograd_function_apply" in str(node.target)]
    assert len(functions) == (3 if method == "full" else 10)  # two norms, SwiGLU, and seven adapted layers
    for function in functions:
        (end,) = graph.get_submodule(function.target).graph.find_nodes(op="output")
        returned = torch.fx.node.map_arg(end.args, lambda node: node) and end.all_input_nodes[0]
        widened = returned.target == "to" and precision == "bfloat16"
        assert widened or not may_be_an_input(returned), f"{function}: {returned.target}"


@pytest.mark.parametrize("method", ["full", "relora"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_compiled_step_is_the_eager_one(make_cell, graphs, method, precision):
    switches = {} if method == "full" else {"dropout": 0.0}
    eager, compiled = (a_run(make_cell, method, switches, compile=on, precision=precision) for on in (False, True))
    for step in (1, 2):
        ours, theirs = (take_step(run, a_batch(), step) for run in (compiled, eager))
        for name in ("loss", "gradient_norm"):
            assert ours[name].item() == pytest.approx(theirs[name].item(), rel=1e-5 if precision == "float32" else 1e-2)
    assert len(graphs) == 1
