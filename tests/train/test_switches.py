"""Switches in which implementations of ReLoRA differ, each against NumPy on the numbers before and after."""

import hashlib
import re

import numpy as np
import pandas as pd
import pytest
import torch
from relora_study.config.schedule import is_reset, learning_rate_ratio, rank_after
from relora_study.dynamics.passes import merge_effects
from relora_study.errors import UserError
from relora_study.model.build import build_model
from relora_study.model.checkpoints import list_checkpoints, load_model, read_metadata
from relora_study.model.relora import adapters, effective_state
from relora_study.train.loop import mean_loss, take_step, train
from relora_study.train.resets import reset
from relora_study.train.run import end_adapters, start
from relora_study.train.state import fingerprint

CPU = torch.device("cpu")
MOMENTS = ("exp_avg", "exp_avg_sq")


def batch_of(step):
    return torch.randint(300, (4, 17), generator=torch.Generator().manual_seed(step))


def trained(cell, steps: int = 3):
    run = start(cell, CPU)
    for step in range(1, steps + 1):
        take_step(run, batch_of(step), step)
    return run


def factors(run) -> list[torch.Tensor]:
    return [factor for layer in adapters(run.model).values() for factor in (layer.A, layer.B)]


def moments(run, parameter) -> list[np.ndarray]:
    return [run.optimizer.state[parameter][name].numpy().copy() for name in MOMENTS]


@pytest.mark.parametrize("kind", ["random", "magnitude"])
def test_a_shared_mask_keeps_both_moments_of_an_entry_or_neither(make_cell, kind):
    method = {"moment_reset": kind, "moment_reset_fraction": 0.75}
    run = trained(make_cell("relora", moment_mask="shared", **method))
    before = [moments(run, factor) for factor in factors(run)]
    reset(run.model, run.optimizer, run.cell.method, seed=3)
    for factor, (first, second) in zip(factors(run), before, strict=True):
        kept = [new != 0 for new in moments(run, factor)]
        assert ((kept[0] == kept[1]) | (first == 0) | (second == 0)).all()
        if kind == "magnitude":
            largest = np.flatnonzero(np.abs(first) > np.quantile(np.abs(first), 0.75))
            for old, new in zip((first, second), moments(run, factor), strict=True):
                expected = np.zeros(old.size)
                expected[largest] = old.flat[largest]
                np.testing.assert_array_equal(new, expected.reshape(old.shape))


def test_independent_masks_differ(make_cell):
    run = trained(make_cell("relora", moment_reset="random", moment_reset_fraction=0.5))
    reset(run.model, run.optimizer, run.cell.method, seed=3)
    kept = [np.concatenate([moments(run, factor)[i].ravel() != 0 for factor in factors(run)]) for i in (0, 1)]
    assert 0.4 < (kept[0] != kept[1]).mean() < 0.6


@pytest.mark.parametrize("scope", ["adapters", "all"])
def test_the_scope_says_whose_moments_are_pruned(make_cell, scope):
    run = trained(make_cell("relora", moment_scope=scope, moment_reset="full", restart="none"))
    own = {id(factor) for factor in factors(run)}
    before = {id(p): moments(run, p) for p in run.model.parameters() if p.requires_grad}
    reset(run.model, run.optimizer, run.cell.method, seed=3)
    others = 0
    for parameter in run.model.parameters():
        if parameter.requires_grad:
            pruned = scope == "all" or id(parameter) in own
            for old, new in zip(before[id(parameter)], moments(run, parameter), strict=True):
                np.testing.assert_array_equal(new, np.zeros_like(old) if pruned else old)
            others += id(parameter) not in own and bool(before[id(parameter)][0].any())
    assert others > 2, "embeddings, norms and head have moments to lose"


@pytest.mark.parametrize("scope", ["adapters", "all"])
def test_at_full_rank_a_reset_clears_the_moments_of_the_targets(make_cell, scope):
    cleared = {"moment_scope": "all"} if scope == "all" else {"targets": ["q_proj", "down_proj"]}
    run = trained(make_cell("full", reset_period=4, moment_reset="full", **cleared))
    weights = [parameter.clone() for parameter in run.model.parameters()]
    reset(run.model, run.optimizer, run.cell.method, seed=3)
    for name, parameter in run.model.named_parameters():
        cleared = scope == "all" or "q_proj" in name or "down_proj" in name
        assert all(cleared == (not moment.any()) for moment in moments(run, parameter)), name
    assert all(map(torch.equal, weights, run.model.parameters()))


def test_at_full_rank_without_clearing_a_period_shapes_the_schedule_alone(make_cell):
    jagged = {"schedule": "jagged_cosine", "rewarmup_steps": 2}
    once, never = (
        make_cell("full", reset_period=period, **jagged, train={"checkpoint_offset": 3}) for period in (4, 10**6)
    )
    ratios = [[learning_rate_ratio(cell.method, step) for step in range(12)] for cell in (once, never)]
    assert [a != b for a, b in zip(*ratios, strict=True)] == [step in (4, 5, 8, 9) for step in range(12)]


@pytest.mark.parametrize("impossible", [{"factor_rank": 2}, {"update": "galore", "projection_rank": 2}])
def test_factors_and_projections_are_not_reset(make_cell, impossible):
    with pytest.raises(UserError, match="reset_period needs adapters or full rank"):
        make_cell("full", reset_period=4, targets=["q_proj"], **impossible)


def test_clearing_at_full_rank_needs_targets(make_cell):
    with pytest.raises(UserError, match="targets must name a projection"):
        make_cell("full", reset_period=4, moment_reset="full")


def test_adapters_as_wide_as_the_model_compute_and_merge_like_any_other(make_cell):
    """Some projections are narrower, so that B A has more inner dimensions than it needs."""
    run = trained(make_cell("relora", rank=24, alpha=48, dropout=0.0))
    assert any(layer.B.shape == (8, 24) for layer in adapters(run.model).values())
    before = mean_loss(run, batch_of(9)).item()
    reset(run.model, run.optimizer, run.cell.method, seed=3)
    assert mean_loss(run, batch_of(9)).item() == pytest.approx(before, rel=1e-6)


def test_a_scale_set_to_zero_after_a_dead_first_cycle_leaves_the_adapters_dead_ever_after(make_cell, tmp_path):
    switches = {"trainable_scale": True, "moment_reset_fraction": 0.5, "dropout": 0.0, "adapter_initialization": "zero"}
    train(make_cell("relora", scale_reset="zero", **switches), CPU, batch_of, tmp_path / "dead")
    train(make_cell("relora", **switches), CPU, batch_of, tmp_path / "alive")
    dead, alive = (pd.read_csv(tmp_path / name / "log.csv", index_col="step") for name in ("dead", "alive"))
    assert (dead.adapter_gradient_norm == 0).all()
    assert (alive.adapter_gradient_norm[10:] > 0).all()
    weights = [load_model(tmp_path / f"dead/checkpoints/step-{step:06d}").state_dict() for step in (11, 16, 24)]
    name = "model.layers.1.mlp.up_proj.weight"
    np.testing.assert_array_equal(weights[0][name].numpy(), weights[2][name].numpy())
    assert not np.array_equal(*(state["lm_head.weight"].numpy() for state in weights[::2]))


def test_a_scale_set_to_zero_keeps_its_moments_which_move_it_again(make_cell):
    run = trained(make_cell("relora", trainable_scale=True, scale_reset="zero", moment_reset="full"))
    scales = [layer.scale for layer in adapters(run.model).values()]
    before = [moments(run, scale) for scale in scales]
    reset(run.model, run.optimizer, run.cell.method, seed=3)
    assert all(scale == 0 for scale in scales)
    for scale, kept in zip(scales, before, strict=True):
        assert moments(run, scale) == kept and min(kept) != 0
    take_step(run, batch_of(4), 4)
    assert all(scale.grad == 0 != scale for scale in scales)


def test_a_scale_that_does_not_train_cannot_be_set_to_zero(make_cell):
    with pytest.raises(UserError, match="scale_reset zero needs trainable_scale"):
        make_cell("relora", scale_reset="zero")


@pytest.mark.parametrize("restart", ["redraw", "none"])
def test_without_a_merge_the_weight_stays_and_a_restart_drops_the_update(make_cell, restart):
    run = trained(make_cell("relora", merge="none", restart=restart, dropout=0.0))
    layers = adapters(run.model)
    parts = {name: [x.detach().numpy().copy() for x in (y.weight, y.B, y.A)] for name, y in layers.items()}
    loss = mean_loss(run, batch_of(0)).item()
    plain = build_model(run.cell.size, run.cell.model, run.cell.seed).eval()
    plain.load_state_dict(effective_state(run.model))
    pairs = {name: (layer.A.detach().clone(), layer.B.detach().clone()) for name, layer in layers.items()}
    found = merge_effects(plain, pairs, run.cell.method, batch_of(0))
    reset(run.model, run.optimizer, run.cell.method, seed=3)
    for name, (weight, up, down) in parts.items():
        np.testing.assert_array_equal(layers[name].weight.detach().numpy(), weight)
        expected = weight if restart == "redraw" else weight + 2.0 * up @ down
        np.testing.assert_allclose(effective_state(run.model)[f"{name}.weight"].numpy(), expected, rtol=1e-4, atol=1e-6)
    assert found["update_lost"] == pytest.approx(1.0 if restart == "redraw" else 0.0)
    assert found["loss_before"] == pytest.approx(loss, rel=1e-5)
    assert found["loss_after"] == pytest.approx(mean_loss(run, batch_of(0)).item(), rel=1e-5)


def test_an_orthogonal_restart_shares_no_direction_with_any_earlier_cycle(make_cell):
    cell = make_cell("relora", restart="orthogonal", dropout=0.0)
    run, seen = start(cell, CPU), {}
    for cycle in range(5):  # 4 + 5 * 4 directions: the narrowest layers have 24
        for step in (1, 2, 3):
            take_step(run, batch_of(10 * cycle + step), 5)
        for name, layer in adapters(run.model).items():
            seen.setdefault(name, []).append(layer.A.detach().double().numpy().copy())
        reset(run.model, run.optimizer, cell.method, seed=cycle)
        for name, layer in adapters(run.model).items():
            down = layer.A.detach().double().numpy()
            cosines = down @ np.concatenate(seen[name]).T
            cosines /= np.linalg.norm(down, axis=1)[:, None] * np.linalg.norm(np.concatenate(seen[name]), axis=1)
            assert np.abs(cosines).max() < 1e-4, (cycle, name)
            sizes = np.linalg.norm(down, axis=1)
            assert (sizes > 0.3).all() and (sizes < 1.0).all(), "as large as a draw that is not projected"
    reset(run.model, run.optimizer, cell.method, seed=9)  # all 24 are used: a new round
    assert all(np.isfinite(layer.A.detach().numpy()).all() for layer in adapters(run.model).values())


def killed(step, stop):
    if step == stop:
        raise KeyboardInterrupt
    return batch_of(step)


@pytest.mark.parametrize("stop", [6, 14, 19])
@pytest.mark.parametrize(
    "switches", [{"restart": "orthogonal"}, {"full_rank_from": 13}, {"frozen_dtype": "bfloat16", "restart": "undone"}]
)
def test_a_killed_run_ends_as_one_never_stopped(make_cell, tmp_path, switches, stop):
    cell = make_cell("relora", **switches)
    train(cell, CPU, batch_of, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(cell, CPU, lambda step: killed(step, stop), tmp_path / "cut")
    train(cell, CPU, batch_of, tmp_path / "cut")
    for file in ("log.csv", "checkpoints/step-000024/model.safetensors", "checkpoints/step-000016/model.safetensors"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "cut" / file).read_bytes()


def test_the_last_phase_trains_whole_weights_from_the_folded_ones(make_cell, tmp_path):
    cell = make_cell("relora", full_rank_from=13)
    train(cell, CPU, batch_of, tmp_path)
    log = pd.read_csv(tmp_path / "log.csv", index_col="step")
    assert log.adapter_gradient_norm.notna().tolist() == [True] * 13 + [False] * 11
    assert log.index[log.reset == 1].tolist() == [9], "none follows in the last phase"
    scales = {step: read_metadata(path).scale for step, path in list_checkpoints(tmp_path).items()}
    assert [step for step, scale in scales.items() if scale is None] == [16, 19, 24]


def test_the_first_step_of_the_last_phase_is_adams_first_step(make_cell):
    run = trained(make_cell("relora", full_rank_from=13, adapters_only=True, dropout=0.0))
    folded = {name: tensor.numpy().copy() for name, tensor in effective_state(run.model).items()}
    end_adapters(run)
    assert not adapters(run.model) and all(parameter.requires_grad for parameter in run.model.parameters())
    for name, tensor in run.model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), folded[name])
    take_step(run, batch_of(4), 4)
    rate = 3e-3 * learning_rate_ratio(run.cell.method, 3)
    for name, parameter in run.model.named_parameters():
        gradient, before = parameter.grad.double().numpy(), folded[name].astype(np.float64)
        expected = before * (1 - rate * 0.01) - rate * gradient / (np.abs(gradient) + 1e-8)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-5, atol=1e-7)


def test_what_goes_on_training_keeps_its_moments(make_cell):
    run = trained(make_cell("relora", full_rank_from=13))
    before = moments(run, run.model.lm_head.weight)
    end_adapters(run)
    for old, new in zip(before, moments(run, run.model.lm_head.weight), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not run.optimizer.state.get(run.model.model.layers[0].mlp.up_proj.weight)


def test_a_narrowed_adapter_trains_as_one_that_was_made_narrow(make_cell):
    """Against a model whose adapters have rank 2, the scale and the first two rows of A of the narrowed ones."""
    plain = {"dropout": 0.0, "reset_period": 50, "restart": "redraw"}
    narrowed = start(make_cell("relora", rank=8, alpha=16, cycle_ranks=[2], **plain), CPU)
    narrow = start(make_cell("relora", rank=2, alpha=4, **plain), CPU)
    for wide, own in zip(adapters(narrowed.model).values(), adapters(narrow.model).values(), strict=True):
        own.A.data.copy_(wide.A.data[:2])
    for step in range(1, 6):
        for run in (narrowed, narrow):
            take_step(run, batch_of(step), step)
    for wide, own in zip(adapters(narrowed.model).values(), adapters(narrow.model).values(), strict=True):
        torch.testing.assert_close(wide.A[:2], own.A, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(wide.B[:, :2], own.B, rtol=1e-4, atol=1e-6)
        assert not wide.A[2:].any() and not wide.B[:, 2:].any(), "exactly zero, not nearly"


@pytest.mark.parametrize("restart", ["redraw", "orthogonal"])
def test_each_cycle_has_its_rank_and_the_last_one_stays(make_cell, restart):
    cycles = {"cycle_ranks": [4, 1, 3], "reset_period": 3, "reset_offset": 0, "rewarmup_steps": 1}
    cell = make_cell("relora", rank=4, restart=restart, train={"checkpoint_offset": 2}, **cycles)
    assert [rank_after(cell.method, step) for step in (0, 2, 3, 5, 6, 9, 12)] == [4, 4, 1, 1, 3, 3, 3]
    run = start(cell, CPU)
    for step in range(1, 12):
        take_step(run, batch_of(step), step)
        if is_reset(cell.method, step):
            reset(run.model, run.optimizer, cell.method, seed=step, rank=rank_after(cell.method, step))
        layer = next(iter(adapters(run.model).values()))
        assert np.linalg.matrix_rank(layer.A.detach().numpy()) == rank_after(cell.method, step)


@pytest.mark.parametrize("impossible", [{"cycle_ranks": [9]}, {"cycle_ranks": []}, {"restart": "none"}])
def test_impossible_ranks_are_refused(make_cell, impossible):
    with pytest.raises(UserError, match="cycle_ranks"):
        make_cell("relora", **{"rank": 8, "cycle_ranks": [2], **impossible})


CHANGED = {
    "full_rank_from": 13,
    "moment_mask": "shared",
    "moment_scope": "all",
    "cycle_ranks": [1],
    "frozen_dtype": "bfloat16",
}


def test_at_their_defaults_the_switches_leave_a_runs_fingerprint_as_it_was(make_cell):
    cell = make_cell("relora")
    text = cell.model_dump_json()
    assert not [key for key in [*CHANGED, "scale_reset", "divergence"] if f'"{key}"' in text]
    for key in ["state_every", "time_limit", "device", "processes", "nodes", "compile", "release_memory"]:
        text, count = re.subn(rf'"{key}":(null|true|false|"\w+"|\d+),?', "", text)
        assert count == 1, key
    text = text.replace(",}", "}")
    assert fingerprint(cell, "data") == hashlib.sha256((text + "data").encode()).hexdigest()
    others = [make_cell("relora", **{name: value}) for name, value in CHANGED.items()]
    assert len({fingerprint(other, "data") for other in [cell, *others]}) == 1 + len(others)


def test_what_a_cell_does_when_it_diverges_is_not_what_it_learns(make_cell):
    recorded, stopped = (make_cell("relora", train={"divergence": what}) for what in ("record", "stop"))
    assert fingerprint(recorded, "data") == fingerprint(stopped, "data")


def in_bfloat16(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.bfloat16).float()


@pytest.mark.parametrize(("merge", "scale"), [("scaled", 2.0), ("unscaled", 1.0)])
def test_a_frozen_weight_in_bfloat16_is_rounded_when_it_is_frozen_and_by_each_merge(make_cell, merge, scale):
    cell = make_cell("relora", frozen_dtype="bfloat16", merge=merge, dropout=0.0)
    run, first = start(cell, CPU), build_model(cell.size, cell.model, cell.seed).state_dict()
    for cycle in range(2):
        for name, layer in adapters(run.model).items():
            if not cycle:
                assert torch.equal(layer.weight, in_bfloat16(first[f"{name}.weight"]))
            assert not torch.equal(layer.weight, first[f"{name}.weight"])
        for step in (1, 2, 3):
            take_step(run, batch_of(10 * cycle + step), 5)
        parts = {name: (x.weight.clone(), x.B.clone(), x.A.clone()) for name, x in adapters(run.model).items()}
        reset(run.model, run.optimizer, cell.method, seed=cycle)
        for name, (weight, up, down) in parts.items():
            assert torch.equal(adapters(run.model)[name].weight, in_bfloat16(torch.addmm(weight, up * scale, down)))
    assert not torch.equal(in_bfloat16(run.model.lm_head.weight), run.model.lm_head.weight), "all else is not rounded"
    assert not any(torch.equal(in_bfloat16(layer.A), layer.A) for layer in adapters(run.model).values())


def test_the_forward_pass_and_the_checkpoint_have_the_rounded_weight(make_cell):
    run = start(make_cell("relora", frozen_dtype="bfloat16", dropout=0.0), CPU)
    loss = mean_loss(run, batch_of(0))
    plain = start(make_cell("full"), CPU)
    assert mean_loss(plain, batch_of(0)) != loss
    for name in adapters(run.model):
        weight = plain.model.get_submodule(name).weight
        weight.data = in_bfloat16(weight.data)
        assert torch.equal(effective_state(run.model)[f"{name}.weight"], weight)
    torch.testing.assert_close(mean_loss(plain, batch_of(0)), loss, rtol=1e-6, atol=0)


def test_a_weight_trained_whole_is_rounded_when_the_adapters_take_over(make_cell, tmp_path):
    cell = make_cell("relora", frozen_dtype="bfloat16", full_rank_steps=10, full_rank_from=21)
    run = train(cell, CPU, batch_of, tmp_path, until=9)
    name = "model.layers.0.self_attn.q_proj"
    trained_whole = run.model.get_submodule(name).weight
    assert not torch.equal(in_bfloat16(trained_whole), trained_whole)
    take_step(run, batch_of(9), 10)
    expected = in_bfloat16(run.model.get_submodule(name).weight.detach())
    run = train(cell, CPU, batch_of, tmp_path, until=10)
    assert torch.equal(adapters(run.model)[name].weight, expected)
    run = train(cell, CPU, batch_of, tmp_path)
    trained_whole = run.model.get_submodule(name).weight
    assert not torch.equal(in_bfloat16(trained_whole), trained_whole), "folded weights train in float32"


def test_the_loss_of_a_merge_includes_its_rounding(make_cell):
    run = trained(make_cell("relora", frozen_dtype="bfloat16", dropout=0.0))
    plain = build_model(run.cell.size, run.cell.model, run.cell.seed).eval()
    plain.load_state_dict(effective_state(run.model))
    pairs = {name: (layer.A.detach().clone(), layer.B.detach().clone()) for name, layer in adapters(run.model).items()}
    exact = {name: layer.effective_weight() for name, layer in adapters(run.model).items()}
    found = merge_effects(plain, pairs, run.cell.method, batch_of(0))
    reset(run.model, run.optimizer, run.cell.method, seed=3)
    merged = effective_state(run.model)
    off = sum((merged[f"{name}.weight"] - weight).square().sum() for name, weight in exact.items())
    whole = sum((2.0 * up @ down).square().sum() for down, up in pairs.values())
    assert found["update_lost"] == pytest.approx((off / whole).sqrt().item(), rel=1e-4) and off > 0
    for name in exact:
        assert torch.equal(plain.get_submodule(name).weight, merged[f"{name}.weight"])


def test_without_adapters_no_weight_is_frozen(make_cell):
    with pytest.raises(UserError, match="frozen_dtype bfloat16 needs a rank above 0"):
        make_cell("full", frozen_dtype="bfloat16")
