"""The registry of updates: an update from outside, added in one place, trains, resumes exactly, and is counted."""

import numpy as np
import pandas as pd
import pytest
import torch
from relora_study.config.method import idle_keys
from relora_study.config.updates import UPDATES, Update
from relora_study.cost.__main__ import cell_plan
from relora_study.errors import UserError
from relora_study.model.build import count_parameters
from relora_study.train.disk import bytes_needed
from relora_study.train.loop import take_step, train
from relora_study.train.optimizer import count_optimizer_numbers, updated_matrices
from relora_study.train.resets import reset
from relora_study.train.run import start

CPU = torch.device("cpu")
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Signs(torch.optim.Optimizer):
    """Steps by the sign of a mean of gradients of which each row has one number."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                mean = self.state[weight].setdefault("rows", torch.zeros(len(weight)))
                mean.lerp_(weight.grad.mean(dim=1), 0.1)
                weight.sub_(group["lr"] * (weight.grad + mean[:, None]).sign())


@pytest.fixture
def signs(monkeypatch):
    """The update `signs`, which the package does not know, for whole weights and for factors."""

    def make(matrices, method, recipe, seed):
        return Signs([part for matrix in matrices for part in matrix], {"lr": recipe["lr"]})

    made = Update(lambda shape, method: shape[0], make, weights=True, factors=True)
    monkeypatch.setitem(UPDATES, "signs", made)


def batch_of(step):
    return torch.randint(300, (4, 17), generator=torch.Generator().manual_seed(step))


def resumed(cell, folder, stop: int):
    """The run of ``cell`` that never stopped, and the one that stopped in step ``stop`` and went on."""

    def stopping(step):
        if step == stop:
            raise KeyboardInterrupt
        return batch_of(step)

    whole = train(cell, CPU, batch_of, folder / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(cell, CPU, stopping, folder / "stopped")
    again = train(cell, CPU, batch_of, folder / "stopped")
    pd.testing.assert_frame_equal(*(pd.read_csv(folder / name / "log.csv") for name in ("whole", "stopped")))
    for key, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[key]), key
    return whole, again


SHORT = {"steps": 16}
WAYS = {
    "whole": {},
    "factorized": {"factor_rank": 4},
    "lora": {"rank": 4, "alpha": 8.0},
    "relora": {"rank": 4, "reset_period": 8, "full_rank_steps": 6, "moment_reset": "full"},
}


@pytest.mark.parametrize("way", WAYS)
def test_an_update_from_outside_trains_resumes_exactly_and_is_counted(make_cell, tmp_path, signs, way):
    plain = make_cell(way, train=SHORT, **({"targets": TARGETS, **WAYS[way]} if WAYS[way] else {}))
    cell = make_cell(way, train=SHORT, update="signs", targets=TARGETS, **WAYS[way])
    run, _ = resumed(cell, tmp_path, 13)
    assert cell.method.is_low_rank == (way != "whole") and not cell.method.is_full_rank
    assert "projection_period" in idle_keys(cell.method)
    assert sum("rows" in state for state in run.optimizer.state.values()) == 14 * (1 if way == "whole" else 2)
    held = [one for state in run.optimizer.state.values() for one in state.values() if one.ndim]
    assert count_optimizer_numbers(cell) == sum(map(torch.numel, held)) < count_optimizer_numbers(plain)
    assert cell_plan(cell)["memory_GiB"] < cell_plan(plain)["memory_GiB"]
    total = count_parameters(cell)[0]
    assert bytes_needed(cell, total) < bytes_needed(plain, total)


def test_an_update_has_its_groups_rate(make_cell, tmp_path, signs):
    cell = make_cell("whole", update="signs", targets=TARGETS, rate_ratios={"targets": 0.25, "head": 2.0})
    run = train(cell, CPU, batch_of, tmp_path, until=5)
    rates = {id(one): group["lr"] for group in run.optimizer.param_groups for one in group["params"]}
    model, peak = run.model, rates[id(run.model.model.norm.weight)]
    assert rates[id(model.lm_head.weight)] == 2 * peak == 8 * rates[id(model.model.layers[0].mlp.up_proj.weight)] > 0


def orthogonalized(matrix: np.ndarray) -> np.ndarray:
    """Muon's polynomial on the singular values: five times 3.4445 s - 4.7750 s^3 + 2.0315 s^5."""
    left, sizes, right = np.linalg.svd(matrix, full_matrices=False)
    sizes = sizes / np.linalg.norm(sizes)
    for _ in range(5):
        sizes = 3.4445 * sizes - 4.7750 * sizes**3 + 2.0315 * sizes**5
    return (left * sizes) @ right


@pytest.mark.parametrize("way", ["whole", "factorized", "lora"])
def test_muon_steps_as_its_definition_says_and_all_else_is_adamws(make_cell, way):
    """Against NumPy in float64, on equal gradients; torch's Muon orthogonalizes in bfloat16."""
    cell = make_cell(
        way, update="muon", targets=TARGETS[:4] + TARGETS[6:], momentum=0.9, train={"weight_decay": 1.0}, **WAYS[way]
    )
    run, rates, recipe = start(cell, CPU), [], cell.train
    matrices = [part for matrix in updated_matrices(cell.method, run.model) for part in matrix]
    assert len(matrices) == 10 * (1 if way == "whole" else 2)
    others = [one for one in run.model.parameters() if one.requires_grad and all(one is not m for m in matrices)]
    theirs, momenta = [one.detach().clone() for one in others], [np.zeros(m.shape) for m in matrices]
    numbers = {"betas": tuple(recipe.betas), "eps": recipe.eps, "weight_decay": recipe.weight_decay}
    adam = torch.optim.AdamW(theirs, fused=True, **numbers)
    for step in range(1, 5):
        before = [m.detach().double().numpy().copy() for m in matrices]
        rates.append(take_step(run, batch_of(step), step)["learning_rate"])
        adam.param_groups[0]["lr"] = rates[-1]
        for mine, copy in zip(others, theirs, strict=True):
            copy.grad = mine.grad.clone()
        adam.step()
        for place, (matrix, old) in enumerate(zip(matrices, before, strict=True)):
            gradient = matrix.grad.double().numpy()
            momenta[place] = 0.9 * momenta[place] + 0.1 * gradient
            direction = orthogonalized(0.1 * gradient + 0.9 * momenta[place]) if gradient.any() else 0 * gradient
            expected = -rates[-1] * (0.2 * max(matrix.shape) ** 0.5 * direction + recipe.weight_decay * old)
            moved = matrix.detach().double().numpy() - old
            assert np.linalg.norm(moved - expected) <= 0.08 * np.linalg.norm(expected) + 1e-6, (step, place)
    assert rates[-1] > 0 and all(map(torch.equal, others, theirs))


@pytest.mark.parametrize("update", ["muon", "spectron", "lora_muon", "smuon"])
@pytest.mark.parametrize("way", ["factorized", "relora"])
def test_a_stopped_training_resumes_exactly_and_what_is_held_is_counted(make_cell, tmp_path, update, way):
    cell = make_cell(way, train=SHORT, update=update, targets=TARGETS, **WAYS[way])
    run, _ = resumed(cell, tmp_path, 13)
    held = [one for state in run.optimizer.state.values() for one in state.values() if one.ndim]
    assert count_optimizer_numbers(cell) == sum(map(torch.numel, held))
    log = pd.read_csv(tmp_path / "whole/log.csv")
    assert np.isfinite(log.loss).all() and log.loss.iloc[-1] != log.loss.iloc[0]


@pytest.mark.parametrize(("kind", "share"), [("full", 0.0), ("random", 0.5), ("magnitude", 0.5), ("none", 1.0)])
def test_a_reset_clears_the_momentum_of_a_and_b_as_it_clears_adams_moments(make_cell, kind, share):
    switches = {"moment_reset": kind, "moment_reset_fraction": 0.5}
    run = start(make_cell("relora", update="muon", **switches), CPU)
    for step in range(1, 4):
        take_step(run, batch_of(step), step)
    head = run.optimizer.state[run.model.lm_head.weight]["exp_avg"].clone()
    reset(run.model, run.optimizer, run.cell.method, seed=3)
    momenta = [state["momentum_buffer"] for state in run.optimizer.state.values() if "momentum_buffer" in state]
    kept = np.concatenate([momentum.numpy().ravel() != 0 for momentum in momenta])
    assert len(momenta) == 28 and kept.mean() == pytest.approx(share, abs=0.03)
    assert torch.equal(head, run.optimizer.state[run.model.lm_head.weight]["exp_avg"])


def test_muon_is_no_method_of_low_rank_and_its_gap_is_to_adamw(make_cell):
    method = make_cell("muon", update="muon", targets=TARGETS).method
    assert not method.is_low_rank and not method.is_full_rank and not method.is_published_kind
    assert make_cell("lora", rank=4, targets=TARGETS, update="muon").method.is_low_rank


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"update": "sgd"}, r"methods\.mine\.update = 'sgd': must be one of plain, galore, .*signs"),
        ({"update": "signs"}, "targets must name a projection"),
        (
            {"update": "signs", "targets": TARGETS, "projection_rank": 4},
            "projection_rank needs update galore, fira, apo",
        ),
        ({"update": "galore", "targets": TARGETS}, "update galore: projection_rank must be set"),
    ],
)
def test_what_an_update_cannot_do_is_refused_in_a_line(make_cell, signs, switches, message):
    with pytest.raises(UserError, match=message) as refused:
        make_cell("mine", **switches)
    assert "\n" not in str(refused.value)
