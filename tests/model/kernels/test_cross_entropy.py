"""The head's loss, its gradients and its log-probabilities are the plain ones, however it is cut into chunks."""

import weakref

import pytest
import torch
from relora_study.model.kernels import cross_entropy
from relora_study.model.kernels.cross_entropy import head_cross_entropy, head_log_probabilities
from relora_study.model.kernels.matmul import matmul, matmul_transposed_wide
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import grad
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode


@pytest.mark.parametrize("chunk_rows", [7, 64, 1000])
def test_the_chunked_loss_and_its_gradients_are_the_plain_ones(monkeypatch, chunk_rows, reference):
    monkeypatch.setattr(cross_entropy, "_chunk_rows", lambda hidden, weight: chunk_rows)
    hidden = torch.randn(3, 30, 12, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(50, 12, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(50, (3, 30))
    plain = reference(cross_entropy).head_cross_entropy(hidden.flatten(0, 1), weight, targets.flatten())
    ours = head_cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(ours, plain)
    expected = torch.autograd.grad(0.25 * plain, (hidden, weight))
    torch.testing.assert_close(torch.autograd.grad(0.25 * ours, (hidden, weight)), expected)


def test_the_heads_gradients_add_up_over_chunks(either_library, monkeypatch):
    monkeypatch.setattr(cross_entropy, "_chunk_rows", lambda hidden, weight: 7)
    hidden, weight = torch.randn(30, 12, requires_grad=True), torch.randn(50, 12, requires_grad=True)
    targets = torch.randint(50, (30,))
    wide = [each.detach().double().requires_grad_() for each in (hidden, weight)]
    found, expected = head_cross_entropy(hidden, weight, targets), head_cross_entropy(*wide, targets)
    for ours, exact in zip([found, *grad(found, (hidden, weight))], [expected, *grad(expected, wide)], strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-4)
        assert ours.dtype == torch.float32


@pytest.mark.parametrize("entries", [7, 512])
def test_log_probabilities_are_the_references(monkeypatch, entries, reference):
    monkeypatch.setattr(cross_entropy, "SCORED_ENTRIES", entries)
    hidden, weight = torch.randn(9, 12, dtype=torch.float64), torch.randn(50, 12, dtype=torch.float64)
    sources, targets = torch.randint(9, (20,)), torch.randint(50, (20,))
    plain = reference(cross_entropy).head_log_probabilities(hidden, weight, sources, targets)
    torch.testing.assert_close(head_log_probabilities(hidden, weight, sources, targets), plain)


@pytest.mark.parametrize("chunk_rows", [100, 1000])
def test_the_head_under_autocast_is_as_exact_as_pytorchs_in_bfloat16(monkeypatch, chunk_rows):
    monkeypatch.setattr(cross_entropy, "_chunk_rows", lambda hidden, weight: chunk_rows)
    hidden, weight = torch.randn(900, 64, requires_grad=True), torch.randn(400, 64, requires_grad=True)
    targets = torch.randint(400, (900,))

    def of_pytorch(dtype):
        operands = [each.detach().to(dtype).requires_grad_() for each in (hidden, weight)]
        loss = functional.linear_cross_entropy(*operands, targets)
        return loss, *grad(loss, operands)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head_cross_entropy(hidden, weight, targets)
    ours, exact, rounded = (loss, *grad(loss, (hidden, weight))), of_pytorch(torch.float64), of_pytorch(torch.bfloat16)
    for found, right, theirs in zip(ours, exact, rounded, strict=True):
        assert found.dtype == torch.float32
        assert (found - right).norm() <= 1.05 * (theirs - right).norm() + 1e-4 * right.norm()
    exactly = head_cross_entropy(hidden.double(), weight.double(), targets)
    torch.testing.assert_close(exactly, exact[0])


def test_logits_and_their_gradient_are_bfloat16_under_autocast(monkeypatch):
    plain, types = cross_entropy._loss_and_gradient, []

    def recording(logits, *others):
        lost, gradient = plain(logits, *others)
        types.append((logits.dtype, gradient.dtype, lost.dtype))
        return lost, gradient

    monkeypatch.setattr(cross_entropy, "_softmax", lambda fused: recording)
    hidden, weight = torch.randn(30, 12, requires_grad=True), torch.randn(50, 12, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        head_cross_entropy(hidden, weight, torch.randint(50, (30,)))
    assert types == [(torch.bfloat16, torch.bfloat16, torch.float32)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_compiler_makes_one_graph_of_the_softmax_and_the_loss_stays(monkeypatch, dtype):
    graphs, backend = [], torch._dynamo.backends.registry.lookup_backend("aot_eager")

    def recording(graph, inputs):
        graphs.append(graph)
        return backend(graph, inputs)

    hidden, weight = torch.randn(30, 12, requires_grad=True), torch.randn(50, 12, requires_grad=True)
    targets = torch.randint(50, (30,))

    def found(fused):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = head_cross_entropy(hidden, weight, targets, fused=fused)
        return loss, *grad(loss, (hidden, weight))

    eager = found(False)
    compiled = torch.compile(cross_entropy._loss_and_gradient, backend=recording, fullgraph=True)
    monkeypatch.setattr(cross_entropy, "_softmax", lambda fused: compiled if fused else None)
    torch.testing.assert_close(found(True), eager)
    (graph,) = graphs
    assert [node for node in graph.graph.nodes if node.kwargs.get("out") is not None] == [], "a compiler would copy"


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_gpu_sums_the_weights_gradient_in_float32():
    """On a fake GPU, which has shapes and types and no numbers."""
    with FakeTensorMode(), Operations() as operations:
        a, b = (torch.empty(6, n, dtype=torch.bfloat16, device="cuda") for n in (4, 5))
        both = matmul_transposed_wide(a, b, plus=matmul_transposed_wide(a, b))
    assert both.dtype == torch.float32 and both.shape == (4, 5)
    assert [name for name in operations.names if "mm" in name] == ["aten.mm.dtype", "aten.addmm.dtype"]


def test_without_such_a_gpu_chunks_add_up_in_float32():
    a, b = torch.ones(300, 4).bfloat16(), torch.ones(300, 5).bfloat16()
    total = None
    for _ in range(5):
        total = matmul_transposed_wide(a[:1], b[:1], plus=total if total is None else total + 255)
    assert total.dtype == torch.float32 and (total == 5 + 4 * 255).all(), "bfloat16 would round 513 and more"


def test_no_chunk_of_logits_is_alive_while_the_next_is_made(onednn, monkeypatch):
    hidden, weight, made = torch.randn(30, 12, requires_grad=True), torch.randn(50, 12, requires_grad=True), []

    def product(a, b, plus=None):
        if b.shape[1] == 50:
            assert not any(logits() is not None for logits in made)
        given = matmul(a, b, plus)
        if b.shape[1] == 50:
            made.append(weakref.ref(given))
        return given

    monkeypatch.setattr(cross_entropy, "_chunk_rows", lambda hidden, weight: 7)
    monkeypatch.setattr(cross_entropy, "matmul", product)
    head_cross_entropy(hidden, weight, torch.randint(50, (30,)))
    assert len(made) == 5
