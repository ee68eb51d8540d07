"""What low-rank factors could do at a checkpoint, by least squares, torch's Adam and directions set by hand."""

import numpy as np
import pytest
import torch
from relora_study.dynamics.steps import first_step, gradient_share, intruders

LAYERS, OUT, IN, RANK = 2, 7, 5, 2


@pytest.fixture
def drawn():
    """A gradient, A and B of two layers."""
    torch.manual_seed(0)
    return torch.randn(LAYERS, OUT, IN), torch.randn(LAYERS, RANK, IN), torch.randn(LAYERS, OUT, RANK)


def within_reach(gradient, down, up):
    """The share of a gradient's squared norm that X A + B Y reaches, by least squares over all entries of X and Y."""
    effects = []
    for place in range(OUT * RANK):
        x = np.eye(1, OUT * RANK, place).reshape(OUT, RANK)
        effects.append((x @ down).ravel())
    for place in range(RANK * IN):
        y = np.eye(1, RANK * IN, place).reshape(RANK, IN)
        effects.append((up @ y).ravel())
    best = np.linalg.lstsq(np.array(effects).T, gradient.ravel(), rcond=None)[0]
    return 1 - ((gradient.ravel() - np.array(effects).T @ best) ** 2).sum() / (gradient**2).sum()


def test_the_share_of_the_gradient_is_what_least_squares_reach(drawn):
    for factors in (drawn, (drawn[0], drawn[1], torch.zeros_like(drawn[2]))):  # B = 0 leaves the rows of A
        expected = [within_reach(*(part[layer].double().numpy() for part in factors)) for layer in range(LAYERS)]
        assert gradient_share(*factors).numpy() == pytest.approx(expected, rel=1e-9)
    wide = torch.randn(LAYERS, IN, IN)
    assert gradient_share(drawn[0], wide, drawn[2]).numpy() == pytest.approx(1.0)  # A has every row


def test_the_first_step_is_the_one_that_torchs_adam_takes(drawn):
    gradient, down, up, scale, rate = *(part.double() for part in drawn), 2.0, 1e-6
    factors = [torch.nn.Parameter(part.clone()) for part in (down, up)]
    whole = torch.nn.Parameter(torch.zeros(LAYERS, OUT, IN, dtype=torch.float64))
    (gradient * (whole + scale * factors[1] @ factors[0])).sum().backward()
    torch.optim.Adam([*factors, whole], lr=rate, eps=1e-30).step()
    moved = scale * (factors[1] @ factors[0] - up @ down).detach().flatten(1)
    adam = whole.detach().flatten(1)
    found = first_step(gradient, down, up, scale)
    cosine = torch.nn.functional.cosine_similarity
    assert found.cosine_with_adam.numpy() == pytest.approx(cosine(moved, adam).numpy(), abs=1e-5)
    assert found.norm_over_adam.numpy() == pytest.approx((moved.norm(dim=1) / adam.norm(dim=1)).numpy(), rel=1e-5)
    assert found.cosine_with_descent.numpy() == pytest.approx(cosine(moved, -gradient.flatten(1)).numpy(), abs=1e-5)


def test_a_direction_turned_within_the_plane_of_others_is_no_intruder():
    then = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.0, 0.0]))[None]
    turn = torch.eye(5)
    turn[:2, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]]) * 0.5**0.5 + torch.eye(2) * 0.5**0.5
    assert intruders(turn @ then, then, 1).item() == 0


@pytest.mark.parametrize(("degrees", "count"), [(59, 0), (61, 1), (90, 1)])
def test_a_direction_that_is_turned_out_of_all_others_is_an_intruder_from_60_degrees_on(degrees, count):
    then = torch.diag(torch.tensor([3.0, 0.0, 0.0]))[None]
    angle = torch.deg2rad(torch.tensor(float(degrees)))
    turned = torch.stack([angle.cos(), angle.sin(), torch.tensor(0.0)])
    now = 3.0 * torch.outer(turned, torch.tensor([1.0, 0.0, 0.0]))[None]
    assert intruders(now, then, 1).item() == count
    assert intruders(now, then, 3).item() == count  # what is only round-off counts for nothing


def test_of_weights_that_are_not_finite_nothing_is_counted():
    now = torch.eye(3).repeat(2, 1, 1)
    now[1, 0, 0] = torch.nan
    assert intruders(now, torch.eye(3).repeat(2, 1, 1), 2).tolist() == pytest.approx([0.0, np.nan], nan_ok=True)
