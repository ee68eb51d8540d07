"""The registry of updates: an update from outside, added in one place, trains, resumes exactly, and is counted."""

import pandas as pd
import pytest
import torch
from relora_study.config.idle import idle_keys
from relora_study.config.updates import UPDATES, Update
from relora_study.cost.__main__ import cell_plan
from relora_study.errors import UserError
from relora_study.model.build import count_parameters
from relora_study.train.disk import bytes_needed
from relora_study.train.loop import train
from relora_study.train.optimizer import count_optimizer_numbers

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


WAYS = {
    "whole": {},
    "factorized": {"factor_rank": 4},
    "lora": {"rank": 4, "alpha": 8.0},
    "relora": {"rank": 4, "reset_period": 8, "full_rank_steps": 6, "moment_reset": "full"},
}


@pytest.mark.parametrize("way", WAYS)
def test_an_update_from_outside_trains_resumes_exactly_and_is_counted(make_cell, tmp_path, signs, way):
    plain = make_cell(way, targets=TARGETS, rate_ratios={"head": 1.5}, **WAYS[way]) if WAYS[way] else make_cell("full")
    cell = make_cell(way, update="signs", targets=TARGETS, **WAYS[way])
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
