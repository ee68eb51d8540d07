"""Spectral metrics against closed forms and SciPy, their invariances, and what they say of broken matrices."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from relora_study.dynamics.measures import (
    condition_number,
    effective_rank,
    frobenius_norm,
    numerical_rank,
    proportional_effective_rank,
    reason,
    spectral_metrics,
    spectrum,
)
from torch.nn import Linear

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12))


def random_orthogonal(size, seed):
    return scipy.stats.ortho_group.rvs(size, random_state=seed) if size > 1 else np.ones((1, 1))


def with_spectrum(values, rows, columns, seed=0):
    """A rows x columns matrix of the given singular values, between two random rotations."""
    core = np.zeros((rows, columns))
    np.fill_diagonal(core, values)
    return random_orthogonal(rows, seed) @ core @ random_orthogonal(columns, seed + 1)


def test_of_an_orthogonal_matrix_all_directions_count_alike():
    values = spectrum(random_orthogonal(16, 0))
    assert proportional_effective_rank(values).item() == pytest.approx(1, abs=1e-12)
    assert condition_number(values).item() == pytest.approx(1, abs=1e-12)
    assert numerical_rank(values, (16, 16)).item() == 16
    assert frobenius_norm(values).item() == pytest.approx(4)


def test_of_a_rank_one_matrix_one_direction_counts():
    values = spectrum(np.outer(np.arange(1.0, 6), np.arange(1.0, 9)))
    assert effective_rank(values).item() == pytest.approx(1, abs=1e-10)
    assert numerical_rank(values, (5, 8)).item() == 1


@pytest.mark.parametrize(("rows", "columns"), [(4, 9), (9, 4), (4, 4)])
def test_a_known_spectrum_gives_its_closed_form(rows, columns):
    metrics = spectral_metrics(spectrum(with_spectrum([8, 4, 2, 2], rows, columns)), (rows, columns))
    # shares 1/2, 1/4, 1/8, 1/8: the entropy is 7/4 bits
    assert metrics["effective_rank"].item() == pytest.approx(2**1.75, rel=1e-12)
    assert metrics["per"].item() == pytest.approx(2**1.75 / 4, rel=1e-12)
    assert metrics["condition_number"].item() == pytest.approx(4, rel=1e-12)
    assert metrics["frobenius_norm"].item() == pytest.approx(math.sqrt(88), rel=1e-12)


@given(SHAPES, st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_metrics_agree_with_scipy(shape, seed):
    matrix = np.random.default_rng(seed).standard_normal(shape)
    oracle = scipy.linalg.svd(matrix, compute_uv=False, lapack_driver="gesvd")
    metrics = spectral_metrics(spectrum(matrix), shape)
    entropy = scipy.stats.entropy(oracle)
    assert metrics["per"].item() == pytest.approx(math.exp(entropy) / min(shape), rel=1e-10)
    assert metrics["condition_number"].item() == pytest.approx(oracle.max() / oracle.min(), rel=1e-6)
    assert metrics["frobenius_norm"].item() == pytest.approx(np.linalg.norm(matrix), rel=1e-12)


@given(SHAPES, st.integers(0, 2**31), st.floats(1e-20, 1e20))
@settings(max_examples=40, deadline=None)
def test_shape_metrics_ignore_scale_rotation_and_transposition(shape, seed, scale):
    matrix = np.random.default_rng(seed).standard_normal(shape)
    turned = scale * random_orthogonal(shape[0], seed % 1000) @ matrix @ random_orthogonal(shape[1], seed % 999)
    before, after = spectral_metrics(spectrum(matrix), shape), spectral_metrics(spectrum(turned.T), shape[::-1])
    for metric in ("per", "effective_rank", "condition_number", "numerical_rank"):
        assert after[metric].item() == pytest.approx(before[metric].item(), rel=1e-5)
    assert after["frobenius_norm"].item() == pytest.approx(scale * before["frobenius_norm"].item(), rel=1e-9)


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_numerical_rank_is_numpys_at_the_stored_precision(rank):
    generator = np.random.default_rng(rank)
    matrix = (generator.standard_normal((20, rank)) @ generator.standard_normal((rank, 30))).astype(np.float32)
    assert numerical_rank(spectrum(matrix), (20, 30)).item() == np.linalg.matrix_rank(matrix) == rank


def test_a_batch_is_its_matrices_one_by_one():
    batch = torch.randn(3, 2, 5, 7, generator=torch.Generator().manual_seed(0))
    values = spectrum(batch)
    assert values.dtype == torch.float64
    assert values.shape == (3, 2, 5)
    for i in range(3):
        for j in range(2):
            assert values[i, j].tolist() == pytest.approx(np.linalg.svd(batch[i, j].double().numpy())[1], rel=1e-12)


def test_zeros_of_the_spectrum_are_no_entropy_and_an_infinite_condition():
    values = torch.tensor([3.0, 3.0, 0.0, 0.0], dtype=torch.float64)
    assert effective_rank(values).item() == pytest.approx(2)
    assert condition_number(values).item() == math.inf
    assert reason(values) == ""


@pytest.mark.parametrize(
    ("broken", "why"),
    [(0.0, "zero matrix"), (math.nan, "non-finite values"), (math.inf, "non-finite values")],
)
def test_a_broken_matrix_is_nan_with_a_reason_and_spares_its_batch(broken, why):
    batch = torch.ones(2, 4, 6)
    batch[1] = broken
    values = spectrum(batch)
    assert [reason(one) for one in values] == ["", why]
    for metric, found in spectral_metrics(values, (4, 6), factored=True).items():
        assert found.isnan().tolist() == [False, True], metric


@pytest.mark.parametrize("aspect", [1, 4])
def test_gaussian_matrices_have_the_spectrum_of_marchenko_and_pastur(aspect):
    """Singular values x of an n x (aspect n) matrix of N(0, 1 / (aspect n)), for large n; aspect 1: a quarter circle.

    With s = 1 / sqrt(aspect) they lie between 1 - s and 1 + s, and PER is exp(-E[x / m log(x / m)]) with m = E[x].
    """
    size, spread = 500, 1 / math.sqrt(aspect)

    def density(x):
        return math.sqrt(max(0.0, ((1 + spread) ** 2 - x**2) * (x**2 - (1 - spread) ** 2))) / (math.pi * spread**2 * x)

    def expected(function):
        return scipy.integrate.quad(lambda x: function(x) * density(x), 1 - spread, 1 + spread)[0]

    assert expected(lambda x: 1) == pytest.approx(1, abs=1e-4)
    mean = expected(lambda x: x)
    per = math.exp(-expected(lambda x: x / mean * math.log(x / mean)))
    matrix = np.random.default_rng(0).normal(scale=1 / math.sqrt(aspect * size), size=(size, aspect * size))
    values = spectrum(matrix)
    metrics = spectral_metrics(values, matrix.shape)
    assert values.mean().item() == pytest.approx(mean, rel=0.005)
    assert values[0].item() == pytest.approx(1 + spread, rel=0.02)
    assert metrics["per"].item() == pytest.approx(per, abs=0.002)
    assert metrics["frobenius_norm"].item() == pytest.approx(math.sqrt(size), rel=0.005)
    if aspect > 1:
        assert metrics["condition_number"].item() == pytest.approx((1 + spread) / (1 - spread), rel=0.03)


def test_one_bad_entry_is_enough():
    matrix = torch.eye(4)
    matrix[2, 1] = math.nan
    assert reason(spectrum(matrix)) == "non-finite values"


@pytest.mark.parametrize(("d_model", "intermediate"), [(96, 384), (384, 1536)])
def test_at_initialisation_w2_has_the_published_spectrum(d_model, intermediate):
    published = {96: (0.96617, 2.8904), 384: (0.96617, 2.9667)}[d_model]
    torch.manual_seed(42)
    metrics = spectral_metrics(
        spectrum(torch.stack([Linear(intermediate, d_model).weight for _ in range(3)])), (d_model, intermediate)
    )
    assert metrics["per"].mean().item() == pytest.approx(published[0], abs=0.005)
    assert metrics["condition_number"].mean().item() == pytest.approx(published[1], rel=0.03)
