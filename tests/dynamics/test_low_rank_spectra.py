"""Spectra from factors against those of the product formed in float64."""

import numpy as np
import pytest
import torch
from relora_study.dynamics.measures import low_rank_spectrum, reason, spectral_metrics, spectrum


def factors(rows, rank, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (3, rows, rank), (3, rank, columns)
    left, right = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return left, right


@pytest.mark.parametrize(("rows", "rank", "columns"), [(48, 8, 192), (64, 8, 192), (16, 16, 40), (12, 1, 5)])
def test_the_factors_give_the_products_singular_values(rows, rank, columns):
    left, right = factors(rows, rank, columns)
    oracle = np.linalg.svd(left.numpy() @ right.numpy(), compute_uv=False)
    found = low_rank_spectrum(left, right).numpy()
    assert found.shape == (3, rank)
    np.testing.assert_allclose(found, oracle[:, :rank], rtol=1e-10)
    assert (oracle[:, rank:] < 1e-12 * oracle[:, :1]).all()


def test_an_ill_conditioned_product_keeps_its_smallest_singular_values():
    """Orthonormal factors around a known core: 1e-12 of the largest is still exact to many digits."""
    left = np.linalg.qr(np.random.default_rng(0).standard_normal((50, 3)))[0] * np.array([1.0, 1e-6, 1e-12])
    right = np.linalg.qr(np.random.default_rng(1).standard_normal((70, 3)))[0].T
    found = low_rank_spectrum(torch.from_numpy(left), torch.from_numpy(right))
    assert found.tolist() == pytest.approx([1, 1e-6, 1e-12], rel=1e-3)


def test_metrics_of_factors_are_those_of_the_product_without_its_round_off():
    left, right = factors(48, 8, 192)
    exact = spectral_metrics(low_rank_spectrum(left, right), (48, 192), factored=True)
    product = spectral_metrics(spectrum(left.float() @ right.float(), torch.float32), (48, 192))
    np.testing.assert_allclose(exact["per"], product["per"], rtol=1e-4)
    np.testing.assert_allclose(exact["per_of_rank"] * 8 / 48, exact["per"], rtol=1e-12)
    assert exact["numerical_rank"].tolist() == product["numerical_rank"].tolist() == [8, 8, 8]
    assert (exact["condition_number"] < 10).all()
    assert (product["condition_number"] > 1e5).all()
    assert (exact["per"] <= 8 / 48).all()


def test_zero_and_broken_factors_have_reasons():
    left, right = factors(10, 4, 12)
    left[1], right[2, 0, 0] = 0, torch.nan
    assert [reason(one) for one in low_rank_spectrum(left, right)] == ["", "zero matrix", "non-finite values"]
