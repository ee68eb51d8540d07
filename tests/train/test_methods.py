"""Each switch of a method does what its comment in config.yaml says."""

import pandas as pd
import pytest
import torch
from relora_study.config.schedule import due_after, is_reset
from relora_study.model.checkpoints import list_checkpoints, load_adapters, load_model, read_metadata
from relora_study.model.relora import adapters, effective_state
from relora_study.train import loop
from relora_study.train.loop import take_step, train
from relora_study.train.resets import _kept, quantile, reset
from relora_study.train.run import start

CPU = torch.device("cpu")


def batch_of(step):
    return torch.randint(300, (4, 17), generator=torch.Generator().manual_seed(step))


def first_gradients(cell):
    run = start(cell, CPU)
    take_step(run, batch_of(0), 1)
    layers = adapters(run.model).values()
    return [
        max(factor.grad.abs().max().item() for factor in pair)
        for pair in zip(*((x.A, x.B) for x in layers), strict=True)
    ]


@pytest.mark.parametrize(
    ("method", "a_learns", "b_learns"),
    [("relora", False, True), ("relora_released", False, False), ("relora_zero2", False, False)],
)
def test_which_factor_has_a_gradient_at_the_first_step(make_cell, method, a_learns, b_learns):
    down, up = first_gradients(make_cell(method))
    assert (down > 0, up > 0) == (a_learns, b_learns)


def test_master_copies_bring_the_old_adapters_back_after_one_step(make_cell):
    cell = make_cell("relora", merge="unscaled", restart="undone", dropout=0.0)
    run, steps = start(cell, CPU), 5
    for step in range(1, steps):
        take_step(run, batch_of(step), step)
    old = {name: (layer.A.clone(), layer.B.clone()) for name, layer in adapters(run.model).items()}
    reset(run.model, run.optimizer, cell.method, seed=0)
    layers = adapters(run.model)
    redrawn = {name: layer.A.clone() for name, layer in layers.items()}
    assert all(layer.B.abs().max() == 0 and not torch.equal(layer.A, old[name][0]) for name, layer in layers.items())
    take_step(run, batch_of(steps), steps)
    for name, layer in layers.items():
        assert layer.B.abs().max() > 0
        assert (layer.A - old[name][0]).abs().max() < 0.1 * (redrawn[name] - old[name][0]).abs().max()
        assert layer.A.grad.abs().max() == 0, "the gradient is that of the redrawn A beside a zero B"


def test_with_master_copies_the_zero_a_of_the_first_cycle_comes_back(make_cell):
    cell = make_cell("relora_zero2")
    run = start(cell, CPU)
    for step in range(1, 11):
        take_step(run, batch_of(step), step)
        layers = adapters(run.model).values()
        if is_reset(cell.method, step):
            reset(run.model, run.optimizer, cell.method, seed=0)
            assert step == 9 and all(layer.A.abs().max() > 0 for layer in layers)
    assert all(layer.A.abs().max() == 0 and layer.B.abs().max() > 0 for layer in layers)


def test_without_a_restart_the_adapters_stay(make_cell):
    cell = make_cell("relora", restart="none", moment_reset="none")
    run = start(cell, CPU)
    for step in range(1, 4):
        take_step(run, batch_of(step), step)
    layers = list(adapters(run.model).values())
    before = [(layer.A.clone(), layer.B.clone(), layer.weight.clone()) for layer in layers]
    moments = [run.optimizer.state[layer.B]["exp_avg"].clone() for layer in layers]
    reset(run.model, run.optimizer, cell.method, seed=0)
    for layer, (down, up, weight), moment in zip(layers, before, moments, strict=True):
        assert torch.equal(layer.A, down) and torch.equal(layer.B, up)
        assert torch.equal(run.optimizer.state[layer.B]["exp_avg"], moment)
        torch.testing.assert_close(layer.weight - weight, 2.0 * up @ down, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("kind", "kept"), [("random", 0.25), ("magnitude", 0.25), ("full", 0.0), ("none", 1.0)])
def test_the_share_of_the_moments_that_survives(make_cell, kind, kept):
    method = make_cell("relora", moment_reset=kind, moment_reset_fraction=0.75).method
    moment = torch.randn(200, 200)
    survives = _kept(moment, method).bool()
    assert survives.double().mean().item() == pytest.approx(kept, abs=0.01)
    if kind == "magnitude":
        assert moment[survives].abs().min() >= moment[~survives].abs().max()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.7, 0.8, 0.9, 0.99, 0.999, 1.0])
def test_the_largest_moments_are_those_above_torchs_quantile(make_cell, share):
    """As `Guitaricet/relora` and axolotl keep them: 39 of 384 entries at 0.9, where counting keeps 38."""
    method = make_cell("relora", moment_reset="magnitude", moment_reset_fraction=share).method
    draws = torch.Generator().manual_seed(1)
    for size in (1, 2, 3, 10, 11, 91, 101, 171, 384, 1001, 17002):
        for moment in (torch.randn(size, generator=draws), torch.randint(-3, 4, (size,), generator=draws) / 1.0):
            expected = moment.abs() > torch.quantile(moment.abs(), share)
            assert torch.equal(_kept(moment, method), expected), size


def test_a_quantile_of_more_numbers_than_torch_takes():
    many = torch.arange(2**24 + 8, dtype=torch.float64).float()
    with pytest.raises(RuntimeError, match="too large"):
        torch.quantile(many, 0.5)
    assert quantile(many, 0.5) == pytest.approx(2**23, abs=8) and quantile(many, 1.0) == many.max()


def test_a_trained_scale_is_in_the_forward_pass_the_merge_and_the_checkpoint(make_cell, tmp_path):
    cell = make_cell("relora", trainable_scale=True)
    run = train(cell, CPU, batch_of, tmp_path)
    layers = adapters(run.model)
    assert all(layer.scale.item() != 2.0 for layer in layers.values())
    last = list_checkpoints(tmp_path)[24]
    factors, effective = load_adapters(last), load_model(last).state_dict()
    for name, layer in layers.items():
        down, up = factors[name]
        rebuilt = layer.weight + read_metadata(last).scale * up @ down
        torch.testing.assert_close(rebuilt, effective[f"{name}.weight"], rtol=1e-5, atol=1e-6)
    before = effective_state(run.model)
    reset(run.model, run.optimizer, cell.method, seed=0)
    torch.testing.assert_close(effective_state(run.model), before)


def test_adapters_only_freezes_all_else(make_cell):
    run = start(make_cell("relora", adapters_only=True), CPU)
    trains = {name for name, parameter in run.model.named_parameters() if parameter.requires_grad}
    assert trains == {f"{name}.{factor}" for name in adapters(run.model) for factor in "AB"}


@pytest.mark.parametrize("stop", [None, 7, 14])
def test_a_full_rank_warm_start_trains_whole_weights_and_then_adapters(make_cell, tmp_path, stop):
    cell = make_cell("relora", full_rank_steps=10, adapter_initialization="zero")
    if stop:
        with pytest.raises(KeyboardInterrupt):
            train(cell, CPU, lambda step: batch_of(step) if step < stop else stop_here(), tmp_path / "relora")
    run = train(cell, CPU, batch_of, tmp_path / "relora")
    log = pd.read_csv(tmp_path / "relora/log.csv")
    assert log.adapter_gradient_norm.notna().tolist() == [False] * 10 + [True] * 14
    assert log.step[log.reset == 1].tolist() == [17]
    models = {step: load_model(path).state_dict() for step, path in list_checkpoints(tmp_path / "relora").items()}
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(models[0][name], models[8][name])
    assert torch.equal(models[11][name], models[16][name]), "dead adapters, and W is frozen after the warm start"
    assert len(adapters(run.model)) == 14


def stop_here():
    raise KeyboardInterrupt


def test_a_warm_start_ends_alike_in_all_processes_and_leaves_no_gradient(make_cell, tmp_path):
    cell, drawn = make_cell("relora", full_rank_steps=2, adapters_only=True), []
    for rank in (0, 1):
        run = start(cell, CPU)
        take_step(run, batch_of(0), 1)
        torch.manual_seed(rank)  # as processes have random numbers of their own
        loop._after_step(run, 2, due_after(cell, 2, cell.train.steps), tmp_path)
        drawn.append([layer.A.detach() for layer in adapters(run.model).values()])
        assert all(parameter.grad is None for parameter in run.model.parameters())
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(rank)))
    assert all(map(torch.equal, *drawn)) and drawn[0][0].any()


def test_lora_is_a_method_with_adapters_and_without_a_reset_period(make_cell, tmp_path):
    """It equals one whose resets do nothing, as in the preset ladder.yaml."""
    plain = {"schedule": "linear", "rewarmup_steps": 0, "moment_reset": "none"}
    lora = train(make_cell("relora", reset_period=None, **plain), CPU, batch_of, tmp_path / "lora")
    idle = train(make_cell("relora", restart="none", merge="none", **plain), CPU, batch_of, tmp_path / "idle")
    first = start(lora.cell, CPU).model.state_dict()
    for name, tensor in lora.model.state_dict().items():
        assert torch.equal(tensor, idle.model.state_dict()[name]), name
        assert torch.equal(tensor, first[name]) == ("proj.weight" in name), f"{name}: the weights are frozen"
    assert pd.read_csv(tmp_path / "lora/log.csv").reset.sum() == 0 < pd.read_csv(tmp_path / "idle/log.csv").reset.sum()
