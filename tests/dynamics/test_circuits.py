"""Both OV circuits against explicit loops over heads, and the published value at initialisation."""

import numpy as np
import pytest
import torch
from relora_study.dynamics.measures import authors_ov, low_rank_spectrum, ov_circuit_factors, spectral_metrics, spectrum
from torch.nn import Linear


def projections(layers, d_model, heads, groups, seed=0):
    torch.manual_seed(seed)
    head_dim = d_model // heads
    value = torch.stack([Linear(d_model, groups * head_dim, bias=False).weight.detach() for _ in range(layers)])
    output = torch.stack([Linear(d_model, d_model, bias=False).weight.detach() for _ in range(layers)])
    return value.double(), output.double(), head_dim


@pytest.mark.parametrize(("heads", "groups"), [(12, 4), (6, 2), (4, 4), (4, 1)])
def test_authors_circuit_is_values_times_outputs_head_by_head(heads, groups):
    value, output, width = projections(2, 48, heads, groups)
    found = authors_ov(value, output, width)
    assert found.shape == (2, width, 48)
    for layer in range(2):
        for head in range(heads):
            group = head // (heads // groups)
            block = (
                value[layer, group * width : (group + 1) * width] @ output[layer, :, head * width : (head + 1) * width]
            )
            torch.testing.assert_close(found[layer, :, head * width : (head + 1) * width], block)


def test_the_fields_circuits_are_what_attention_adds_to_the_residual_stream():
    """With all attention on one token, the heads' circuits applied to it sum to the layer's output for it."""
    value, output, width = projections(1, 48, 6, 2)
    left, right = ov_circuit_factors(value, output, width)
    token = torch.randn(48, dtype=torch.float64)
    # grouped-query attention in plain words: each group's value serves heads / groups heads in a row
    heads = (value[0] @ token).reshape(2, width).repeat_interleave(3, dim=0).flatten()
    torch.testing.assert_close((left[0] @ right[0]).sum(0) @ token, output[0] @ heads)


def test_the_fields_circuit_has_the_spectrum_of_the_formed_product():
    value, output, width = projections(2, 48, 6, 2)
    left, right = ov_circuit_factors(value, output, width)
    found = low_rank_spectrum(left, right)
    assert found.shape == (2, 6, width)
    formed = np.linalg.svd((left @ right).numpy(), compute_uv=False)
    np.testing.assert_allclose(found, formed[..., :width], rtol=1e-9)


@pytest.mark.parametrize(("d_model", "published"), [(96, (0.98681, 1.6944)), (384, (0.98648, 1.8487))])
def test_at_initialisation_the_authors_circuit_has_the_published_spectrum(d_model, published):
    value, output, width = projections(12, d_model, 12, 4, seed=42)
    metrics = spectral_metrics(spectrum(authors_ov(value, output, width)), (width, d_model))
    assert metrics["per"].mean().item() == pytest.approx(published[0], abs=0.005)
    assert metrics["condition_number"].mean().item() == pytest.approx(published[1], rel=0.05)
