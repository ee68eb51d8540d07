"""Projected optimizers step as their authors' packages do, and as their papers' equations say."""

import importlib
import importlib.util
import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from relora_study.config import Method
from relora_study.errors import UserError
from relora_study.model.build import count_parameters
from relora_study.model.checkpoints import list_checkpoints, load_model, read_metadata
from relora_study.model.relora import effective_state
from relora_study.train import loop
from relora_study.train.disk import bytes_needed
from relora_study.train.loop import take_step, train
from relora_study.train.optimizer import count_optimizer_numbers, updated_matrices
from relora_study.train.run import start
from relora_study.train.state import fingerprint
from relora_study.train.updates.projected import Projected, leading_directions, random_directions

CPU = torch.device("cpu")
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROJECTED = {"targets": TARGETS, "projection_rank": 4, "projection_period": 5}
METHODS = {
    "galore": {"update": "galore", "projection_scale": 0.25, **PROJECTED},
    "fira": {"update": "fira", **PROJECTED},
    "apollo": {"update": "apollo", **PROJECTED},
    "apollo_mini": {"update": "apollo", "projection_scaling": "tensor", **PROJECTED, "projection_rank": 1},
    "factorized": {"factor_rank": 4, "targets": TARGETS},
}
RECIPE = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-6, "weight_decay": 0.1}
SHAPES = [(12, 7), (7, 12), (9, 9)]


def batch_of(step):
    return torch.randint(300, (4, 17), generator=torch.Generator().manual_seed(step))


def module_of(package: str, name: str) -> ModuleType:
    """A module of ``package``, without the package's own imports: they need bitsandbytes."""
    if package not in sys.modules:
        found = importlib.util.find_spec(package)
        assert found, f"{package} is in requirements-dev.txt: make .venv/test"
        sys.modules[package] = importlib.util.module_from_spec(found)  # which is not executed
    return importlib.import_module(f"{package}.{name}")


def method_of(update: str, **switches) -> Method:
    schedule = {"schedule": "linear", "warmup_steps": 0, "horizon_steps": 9}
    return Method(rank=0, targets=TARGETS, update=update, **switches, **schedule)


def both(shape: tuple[int, int], method: Method) -> tuple[torch.nn.Parameter, torch.nn.Parameter, Projected]:
    """Two equal weights, and our optimizer of the first."""
    small = 0.01 * torch.randn(shape, generator=torch.Generator().manual_seed(1))  # so that rounding it hides no step
    mine, theirs = (torch.nn.Parameter(small.clone()) for _ in "ab")
    return mine, theirs, Projected([(mine,)], method, RECIPE, seed=3)


def gradients(shape: tuple[int, int], steps: int = 8):
    """Gradients whose norm grows at once by more than the limiter allows, and falls again."""
    draws = np.random.default_rng(2)
    for step in range(steps):
        yield torch.tensor(draws.normal(size=shape) * (5.0 if step in (2, 3, 6) else 1.0), dtype=torch.float32)


def largest_difference(mine, theirs, ours, package, shape) -> float:
    """The largest difference of both weights in any step, over the largest change of the weight."""
    first, found = mine.detach().clone(), 0.0
    for gradient in gradients(shape):
        mine.grad, theirs.grad = gradient.clone(), gradient.clone()
        ours.step()
        package.step()
        found = max(found, (mine - theirs).abs().max().item())
    return found / (mine - first).abs().max().item()


def group(weight: torch.nn.Parameter, method: Method, **more) -> list[dict]:
    return [
        {
            "params": [weight],
            "rank": method.projection_rank,
            "update_proj_gap": method.projection_period,
            "proj_type": "std",
            **more,
        }
    ]


@pytest.mark.parametrize("period", [3, 100])
@pytest.mark.parametrize("shape", SHAPES)
def test_galore_is_galore_torchs(shape, period):
    method = method_of("galore", projection_rank=3, projection_period=period, projection_scale=0.25)
    mine, theirs, ours = both(shape, method)
    package = module_of("galore_torch", "adamw").AdamW(group(theirs, method, scale=0.25), **RECIPE)
    assert largest_difference(mine, theirs, ours, package, shape) < 1e-5


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("period", [3, 100])
@pytest.mark.parametrize("shape", SHAPES)
def test_fira_is_firas(shape, period, scale):
    method = method_of("fira", projection_rank=3, projection_period=period, projection_scale=scale)
    mine, theirs, ours = both(shape, method)
    package = module_of("fira", "fira_adamw").AdamW(group(theirs, method, alpha=scale), **RECIPE)
    assert largest_difference(mine, theirs, ours, package, shape) < 1e-5


@pytest.mark.parametrize(("scaling", "rank", "scale"), [("channel", 3, 1.0), ("tensor", 1, 128**0.5)])
@pytest.mark.parametrize("period", [3, 100])
@pytest.mark.parametrize("shape", SHAPES)
def test_apollo_is_apollo_torchs_on_equal_projections(monkeypatch, shape, period, scaling, rank, scale):
    method = method_of(
        "apollo",
        projection_rank=rank,
        projection_period=period,
        projection_scale=scale,
        projection_scaling=scaling,
    )
    mine, theirs, ours = both(shape, method)

    def drawn(self, weights, rank, type, seed):
        assert weights.shape == shape
        return ours.state[mine]["projection"] if type == "left" else ours.state[mine]["projection"].mT

    apollo = module_of("apollo_torch", "apollo")
    monkeypatch.setattr(apollo.GradientProjector, "get_orthogonal_matrix", drawn)
    groups = group(theirs, method, scale=scale**2, proj="random", scale_type=scaling)
    package = apollo.AdamW(groups, **RECIPE)
    assert largest_difference(mine, theirs, ours, package, shape) < 1e-5


def test_directions_lead_and_draws_have_their_variance():
    gradient = next(gradients((40, 60)))
    left, _, _ = np.linalg.svd(gradient.double().numpy())
    found = leading_directions(gradient, 5).double().numpy()
    np.testing.assert_allclose(np.abs(left[:, :5].T @ found), np.eye(5), atol=1e-4)
    one, other, later = (random_directions(torch.empty(900, 500), 4, (7, *place)) for place in ((0, 0), (1, 0), (0, 5)))
    assert one.shape == (500, 4) and one.mean().abs() < 0.05 and one.var().item() == pytest.approx(1 / 4, rel=0.1)
    for another in (other, later):
        assert abs(np.corrcoef(one.flatten(), another.flatten())[0, 1]) < 0.1
    assert torch.equal(one, random_directions(torch.empty(900, 500), 4, (7, 0, 0)))


@pytest.mark.parametrize("name", ["galore", "apollo"])
def test_projections_last_a_period_and_differ_between_weights_and_seeds(make_cell, name):
    cell = make_cell(name, **METHODS[name])
    run, again = start(cell, CPU), start(cell, CPU)
    other = start(cell.model_copy(update={"seed": 2}), CPU)
    kept = []
    for step in range(1, 12):
        for each in (run, again, other):
            take_step(each, batch_of(step), step)
        weights = [weight for (weight,) in updated_matrices(cell.method, run.model)]
        kept.append([run.optimizer.state[weight]["projection"].clone() for weight in weights])
    alike = [all(map(torch.equal, now, then)) for now, then in zip(kept[1:], kept, strict=False)]
    assert [step for step, equal in enumerate(alike, 2) if not equal] == [6, 11]
    first, last = kept[-1][0], kept[-1][7]  # q_proj of both layers
    assert first.shape == last.shape and not torch.equal(first, last)
    for each, equal in ((again, True), (other, False)):
        ((weight,), *_) = updated_matrices(cell.method, each.model)
        assert torch.equal(each.optimizer.state[weight]["projection"], first) == equal


@pytest.mark.parametrize("name", ["galore", "fira", "apollo", "apollo_mini"])
def test_all_but_the_targets_train_as_in_full_rank(make_cell, name):
    run, plain = start(make_cell(name, **METHODS[name]), CPU), start(make_cell("full"), CPU)
    for step in (1, 2):
        take_step(run, batch_of(step), step)
        take_step(plain, batch_of(step), step)
    targets = {id(weight) for (weight,) in updated_matrices(run.cell.method, run.model)}
    assert len(targets) == 14
    # The first step has rate 0, so the second one's gradients are equal, too.
    for (key, mine), theirs in zip(run.model.named_parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(mine, theirs) == (id(mine) not in targets), key


@pytest.mark.parametrize("stop", [6, 13])
@pytest.mark.parametrize("name", METHODS)
def test_a_stopped_training_ends_as_one_never_stopped(make_cell, tmp_path, name, stop):
    def stopping(step):
        if step == stop:
            raise KeyboardInterrupt
        return batch_of(step)

    cell = make_cell(name, **METHODS[name])
    whole = train(cell, CPU, batch_of, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(cell, CPU, stopping, tmp_path / "stopped")
    again = train(cell, CPU, batch_of, tmp_path / "stopped")
    for key, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[key]), key
    logs = [pd.read_csv(tmp_path / place / "log.csv") for place in ("whole", "stopped")]
    pd.testing.assert_frame_equal(*logs)
    assert logs[0].loss.iloc[-1] != logs[0].loss.iloc[0] and np.isfinite(logs[0].loss).all()


@pytest.mark.parametrize("name", METHODS)
def test_a_step_in_bfloat16_moves_the_float32_weights(make_cell, name):
    cell = make_cell(name, **METHODS[name])
    run = start(cell.model_copy(update={"runtime": cell.runtime.model_copy(update={"precision": "bfloat16"})}), CPU)
    before = {key: tensor.clone() for key, tensor in run.model.state_dict().items()}
    for step in (1, 2):
        row = take_step(run, batch_of(step), step)
    assert row["loss"].isfinite() and row["update_norm"] > 0
    for key, tensor in run.model.state_dict().items():
        assert tensor.dtype == torch.float32 and tensor.isfinite().all()
        if "proj" in key:
            assert not torch.equal(tensor, before[key]), key


@pytest.mark.parametrize("name", METHODS)
def test_what_the_plan_and_the_disk_count_is_what_the_optimizer_holds(make_cell, tmp_path, name):
    cell = make_cell(name, **METHODS[name])
    run = train(cell, CPU, batch_of, tmp_path, until=2)
    tensors = [value for state in run.optimizer.state.values() for value in state.values() if value.ndim]
    total, trainable = count_parameters(cell)
    assert (total, trainable) == (sum(p.numel() for p in run.model.parameters()),) * 2
    assert count_optimizer_numbers(cell) == sum(map(torch.numel, tensors))
    checkpoint, state = (next(tmp_path.glob(f"{kind}/step-*/*.safetensors")) for kind in ("checkpoints", "state"))
    numbers = 4 * (total + count_optimizer_numbers(cell))
    assert state.stat().st_size == pytest.approx(numbers, abs=40_000)  # names, random generators
    due = 4  # steps 0, 8, 16 and 24
    counted = bytes_needed(cell, total)
    assert counted == pytest.approx(due * checkpoint.stat().st_size + 3 * numbers, rel=0.05)


def test_a_gradient_that_is_not_finite_is_recorded_as_a_divergence(make_cell, tmp_path, monkeypatch):
    """At a new projection, whose decomposition would raise."""
    forward = loop.mean_loss
    cell = make_cell("galore", **METHODS["galore"])
    losses = iter(range(100))

    def broken(run, rows):
        return forward(run, rows) * (float("nan") if next(losses) == 10 else 1.0)

    monkeypatch.setattr(loop, "mean_loss", broken)
    assert train(cell, CPU, batch_of, tmp_path).diverged_at == 11


def test_a_factorized_model_begins_near_full_rank_and_is_saved_as_a_plain_one(make_cell, tmp_path):
    cell = make_cell("factorized", **METHODS["factorized"])
    plain = start(make_cell("full"), CPU).model.state_dict()
    run = train(cell, CPU, batch_of, tmp_path)
    folders = list_checkpoints(tmp_path)
    first, last = (load_model(folders[step]).state_dict() for step in (0, 24))
    assert read_metadata(folders[24]).scale is None
    assert first.keys() == plain.keys()
    for name, weight in first.items():
        if name.split(".")[-2] not in TARGETS:
            assert torch.equal(weight, plain[name])
            continue
        left, sizes, right = np.linalg.svd(plain[name].double().numpy(), full_matrices=False)
        np.testing.assert_allclose(weight, (left[:, :4] * sizes[:4]) @ right[:4], atol=1e-5)
        trained = last[name].double().numpy()
        assert np.linalg.matrix_rank(trained, tol=1e-4) == 4
        torch.testing.assert_close(effective_state(run.model)[name], last[name])
    layer = run.model.model.layers[0].self_attn.q_proj
    x = torch.randn(3, 24)
    torch.testing.assert_close(layer(x), x @ last["model.layers.0.self_attn.q_proj.weight"].mT, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"update": "galore", "targets": TARGETS}, "projection_rank must be set"),
        ({"projection_rank": 4, "targets": TARGETS}, "projection_rank needs update galore, fira, apollo: update plain"),
        ({"update": "galore", "projection_rank": 4}, "targets must name"),
        ({"update": "galore", "projection_rank": 9, "targets": TARGETS}, "projection_rank 9 is above 8"),
        ({"factor_rank": 9, "targets": TARGETS}, "factor_rank 9 is above 8"),
        ({"factor_rank": 4, **METHODS["galore"]}, "factor_rank excludes update galore, which steps whole weights"),
        ({"projection_scale": 0.5}, "projection_scale needs update galore, fira, apollo: update plain"),
        ({**METHODS["fira"], "projection_scaling": "tensor"}, "projection_scaling needs update apollo: update fira"),
        ({"targets": TARGETS}, "targets need a rank"),
        ({**METHODS["galore"], "reset_period": 8}, "reset_period needs adapters or full rank"),
    ],
)
def test_impossible_settings_are_refused_with_their_key(make_cell, switches, message):
    with pytest.raises(UserError, match=message):
        make_cell("other", **switches)


@pytest.mark.parametrize("switches", [{"factor_rank": 4}, METHODS["galore"]])
def test_adapters_exclude_factors_and_projections(make_cell, switches):
    with pytest.raises(UserError, match="excludes"):
        make_cell("relora", **switches)


def test_full_rank_keeps_its_fingerprint_and_each_key_changes_it(make_cell):
    text = make_cell("full").model_dump_json()
    assert not [key for key in ("factor_rank", '"update"', "projection") if key in text]
    cells = [make_cell("full"), *(make_cell("other", **switches) for switches in METHODS.values())]
    cells.append(make_cell("other", **METHODS["galore"] | {"projection_period": 6}))
    cells.append(make_cell("other", **METHODS["galore"] | {"projection_scale": 0.5}))
    assert len({fingerprint(cell, "data") for cell in cells}) == len(cells)
