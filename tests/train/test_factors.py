"""Updates of A and B, each against its paper's formula, written plainly with NumPy's decompositions in float64."""

import numpy as np
import pytest
import torch
from relora_study.config import Method
from relora_study.config.updates import UPDATES
from relora_study.errors import UserError
from relora_study.model.relora import adapters
from relora_study.train.loop import take_step, train
from relora_study.train.resets import narrow, reset
from relora_study.train.run import start
from relora_study.train.updates import factors
from relora_study.train.updates.factors import inverse_root, polar, polar_of_product

CPU = torch.device("cpu")
OPTIMIZERS = {"spectron": factors.Spectron, "lora_muon": factors.LoRAMuon, "smuon": factors.SMuon}
RECIPE = {"lr": 0.02, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.5}
BETA = 0.8
SHAPES = [(14, 9, 3), (9, 14, 3), (8, 8, 8)]  # out, in, rank


def batch_of(step):
    return torch.randint(300, (4, 17), generator=torch.Generator().manual_seed(step))


def exact(matrix: np.ndarray) -> np.ndarray:
    """U V^T, of the directions above round-off."""
    left, sizes, right = np.linalg.svd(matrix, full_matrices=False)
    return left @ np.diag(sizes > 1e-9 * sizes.max()) @ right


def spectron(a, b, of_a, of_b, state):
    """Algorithms 1 and 3, of W = B A; the momenta are new, and so are the factors' decay and the power iteration."""
    a, b = (1 - 0.02 * 0.5) * a, (1 - 0.02 * 0.5) * b
    norms = []
    for key, tall in (("a", a.T), ("b", b)):
        v = tall.T @ state[key] / np.linalg.norm(tall.T @ state[key])
        state[key] = tall @ v / np.linalg.norm(tall @ v)
        v = tall.T @ state[key] / np.linalg.norm(tall.T @ state[key])
        norms.append(state[key] @ tall @ v)
    rate = 0.02 / (sum(norms) + 1)
    return a - rate * exact(of_a), b - rate * exact(of_b), of_a, of_b


def lora_muon(a, b, of_a, of_b, state):
    """Algorithm 1, of W = A' B'^T with A' = B and B' = A^T."""

    def root(gram):
        sizes, directions = np.linalg.eigh(gram / np.linalg.norm(gram) + 1e-5 * np.eye(len(gram)))
        return directions @ np.diag(sizes**-0.5) @ directions.T / np.linalg.norm(gram) ** 0.5

    first, second, m_first, m_second = b, a.T, of_b, of_a.T
    root_first, root_second = root(first.T @ first), root(second.T @ second)
    step_first = -0.02 / 2 * exact(m_first @ root_second) @ root_second
    step_second = -0.02 / 2 * exact(m_second @ root_first) @ root_first
    share = np.sqrt(1 - 0.5 * 0.02)
    return (share * second + step_second / share).T, share * first + step_first / share, of_a, of_b


def smuon(a, b, of_a, of_b, state):
    """Equations 15, 11, 23 and 34 with pseudo-inverses, of W^T = B' A' with B' = A^T and A' = B^T."""
    first, second, m_first, m_second = a.T, b.T, of_a.T, of_b.T
    inverse = np.linalg.pinv(first)
    outside = np.eye(len(first)) - first @ inverse
    h = inverse.T @ m_second + outside @ m_first @ np.linalg.pinv(second).T
    scale, share = 0.02 * 0.2 * np.sqrt(len(first) * second.shape[1] / len(second)), np.sqrt(1 - 0.5 * 0.02)
    new_second = share * second - scale * inverse @ exact(h) / share
    new_first = share * first - scale * outside @ exact(h) @ np.linalg.pinv(second) / share
    return new_first.T, new_second.T, (h @ new_second.T).T, (new_first.T @ h).T


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("update", "formula"), [("spectron", spectron), ("lora_muon", lora_muon), ("smuon", smuon)])
def test_steps_are_the_papers(monkeypatch, update, formula, shape):
    """Of factors that are far from singular; without sMuon's damping, and with an exact polar factor."""
    monkeypatch.setattr(factors, "DAMPING", 1e-12)
    monkeypatch.setattr(factors, "polar", lambda matrix: torch.tensor(exact(matrix.numpy())))
    out, width, rank = shape
    draws = np.random.default_rng(1)
    a, b = draws.normal(size=(rank, width)), draws.normal(size=(out, rank))
    if rank == width:  # a square of normal numbers may be nearly singular
        a, b = np.linalg.qr(a)[0] + 0.1 * a, np.linalg.qr(b)[0] + 0.1 * b
    method = Method(
        rank=rank, targets=["q_proj"], update=update, momentum=BETA, schedule="linear", warmup_steps=0, horizon_steps=9
    )
    mine = tuple(torch.nn.Parameter(torch.tensor(one, dtype=torch.float64)) for one in (a, b))
    ours = OPTIMIZERS[update]([mine], method, RECIPE, seed=3)
    of_a, of_b, state = np.zeros(a.shape), np.zeros(b.shape), {}
    for step in range(6):
        gradients = draws.normal(size=a.shape), draws.normal(size=b.shape)
        for part, gradient in zip(mine, gradients, strict=True):
            part.grad = torch.tensor(gradient)
        if update == "spectron" and not step:
            state |= {"a": draws.normal(size=width), "b": draws.normal(size=out)}
            for part, key in zip(mine, "ab", strict=True):
                ours.state[part]["direction"] = torch.tensor(state[key])
        ours.step()
        of_a, of_b = BETA * of_a + (1 - BETA) * gradients[0], BETA * of_b + (1 - BETA) * gradients[1]
        a, b, of_a, of_b = formula(a, b, of_a, of_b, state)
        for part, expected in zip(mine, (a, b), strict=True):
            np.testing.assert_allclose(part.detach().numpy(), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("shape", [(48, 8), (8, 192), (24, 24)])
def test_the_polar_factor_is_that_of_the_singular_value_decomposition(shape):
    matrix = torch.tensor(np.random.default_rng(2).normal(size=shape), dtype=torch.float32)
    expected = exact(matrix.double().numpy())
    assert np.linalg.norm(polar(matrix).numpy() - expected) < 2e-3 * np.linalg.norm(expected)
    assert not polar(0 * matrix).any()


def test_the_polar_factor_of_a_product_is_that_of_the_product():
    draws = np.random.default_rng(3)
    for left, right in [((20, 6), (6, 30)), ((5, 8), (8, 9))]:
        left, right = draws.normal(size=left), draws.normal(size=right)
        left[:, 0] = 0.0  # as B has columns of zeros after a restart
        basis, rows = polar_of_product(torch.tensor(left), torch.tensor(right))
        np.testing.assert_allclose((basis @ rows).numpy(), exact(left @ right), atol=2e-3)


@pytest.mark.parametrize("update", OPTIMIZERS)
def test_lora_muon_alone_heeds_only_the_product(update):
    """A step of B A from equal products, of which one has A ten times and B a tenth as large."""
    draws = np.random.default_rng(4)
    a, b, gradient = draws.normal(size=(3, 9)), draws.normal(size=(14, 3)), draws.normal(size=(14, 9))
    method = Method(rank=3, targets=["q_proj"], update=update, schedule="linear", warmup_steps=0, horizon_steps=9)
    steps = []
    for size in (1.0, 10.0):
        pair = tuple(torch.nn.Parameter(torch.tensor(one)) for one in (a * size, b / size))
        pair[0].grad, pair[1].grad = torch.tensor(b.T @ gradient / size), torch.tensor(gradient @ a.T * size)
        OPTIMIZERS[update]([pair], method, RECIPE | {"lr": 1e-5, "weight_decay": 0.0}, seed=1).step()
        steps.append((pair[1] @ pair[0]).detach().numpy() - b @ a)
    same = np.linalg.norm(steps[0] - steps[1]) < 0.01 * np.linalg.norm(steps[0])
    assert same == (update != "spectron")
    assert (steps[0] * gradient).sum() < 0, "downhill"


def test_the_split_decay_shrinks_the_product_by_the_decay():
    a, b = torch.randn(3, 9, generator=torch.Generator().manual_seed(1)), torch.ones(14, 3)
    product = b @ a
    factors.move(a, b, torch.zeros_like(a), torch.zeros_like(b), {"lr": 0.1, "weight_decay": 0.5})
    torch.testing.assert_close(b @ a, 0.95 * product)


def test_an_inverse_root_of_zero_is_zero_and_numbers_that_are_not_finite_do_not_raise():
    assert not inverse_root(torch.zeros(3, 3)).any()
    inverse_root(torch.full((3, 3), torch.nan))
    assert factors.damped_inverse(torch.full((3, 3), torch.nan)).isnan().all()


@pytest.mark.parametrize("update", OPTIMIZERS)
def test_a_restart_from_zero_is_left_and_steps_stay_small(make_cell, tmp_path, update):
    """B is zero after each restart and the rate is zero in the first step of a climb; then both factors move."""
    cell = make_cell("relora", update=update, moment_reset="full", full_rank_steps=5)
    run = train(cell, CPU, batch_of, tmp_path)
    for layer in adapters(run.model).values():
        assert 0 < layer.B.norm() < 10 and 0 < layer.A.norm() < 10 * 8**0.5
    reset(run.model, run.optimizer, cell.method, seed=3)
    assert all(not run.optimizer.state[layer.A]["momentum_buffer"].any() for layer in adapters(run.model).values())


@pytest.mark.parametrize("update", OPTIMIZERS)
def test_what_is_narrowed_stays_zero(make_cell, update):
    run = start(make_cell("relora", update=update), CPU)
    for step in range(1, 4):
        take_step(run, batch_of(step), step)
    for layer in adapters(run.model).values():
        narrow(layer, run.optimizer, 2)
    for step in range(4, 7):
        take_step(run, batch_of(step), step)
    for layer in adapters(run.model).values():
        assert not layer.A[2:].any() and not layer.B[:, 2:].any() and layer.A[:2].any() and layer.B[:, :2].any()


def test_updates_of_factors_need_factors(make_cell):
    with pytest.raises(UserError, match="update spectron steps factors: set rank or factor_rank"):
        make_cell("mine", update="spectron", targets=["q_proj"])
    assert {name for name, update in UPDATES.items() if update.factors} == {*OPTIMIZERS, "muon"}
