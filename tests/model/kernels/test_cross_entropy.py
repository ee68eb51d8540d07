"""The head's loss, its gradients and its log-probabilities are the plain ones, however it is cut into chunks."""

import pytest
import torch
from relora_study.model.kernels import cross_entropy
from relora_study.model.kernels.cross_entropy import head_cross_entropy, head_log_probabilities
from torch.autograd import grad


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
