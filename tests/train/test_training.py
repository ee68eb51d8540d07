import json
import math
import shutil
from collections import namedtuple

import pandas as pd
import pytest
import torch
from relora_study.config.schedule import is_reset, learning_rate_ratio
from relora_study.errors import UserError
from relora_study.model import device
from relora_study.model.build import build_model
from relora_study.model.checkpoints import list_checkpoints, load_adapters, load_model, read_metadata
from relora_study.model.relora import adapters
from relora_study.train import loop
from relora_study.train.log import Recorder
from relora_study.train.loop import take_step, train
from relora_study.train.resets import reset
from relora_study.train.run import start
from torch.nn import functional
from transformers import AutoModelForCausalLM, get_cosine_schedule_with_warmup

CPU = torch.device("cpu")


def batch_of(step):
    return torch.randint(300, (4, 17), generator=torch.Generator().manual_seed(step))


def test_jagged_cosine_is_the_closed_form(make_cell):
    method = make_cell("relora").method.model_copy(
        update={"warmup_steps": 2000, "reset_period": 2000, "rewarmup_steps": 100, "horizon_steps": 200_000}
    )

    def expected(step):
        def cosine(s):
            return 0.1 + 0.45 * (1 + math.cos(math.pi * (s - 2000) / 198_000))

        if step < 2000:
            return step / 2000
        start = step // 2000 * 2000
        return (step - start) / 100 * cosine(start + 100) if step - start < 100 else cosine(step)

    for step in range(0, 20_000):
        assert learning_rate_ratio(method, step) == pytest.approx(expected(step), abs=1e-12)


def test_linear_is_the_closed_form(make_cell):
    method = make_cell("full").method.model_copy(update={"warmup_steps": 2500, "horizon_steps": 200_000})
    for step in range(0, 210_000, 7):
        expected = min(step / 2500, max(0, (200_000 - step) / 197_500))
        assert learning_rate_ratio(method, step) == pytest.approx(expected, abs=1e-12)


def test_cosine_is_transformers(make_cell):
    method = make_cell("full").method.model_copy(
        update={"schedule": "cosine", "warmup_steps": 30, "horizon_steps": 200, "minimum_learning_rate_ratio": 0.0}
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_cosine_schedule_with_warmup(optimizer, 30, 200)
    for step in range(200):
        assert learning_rate_ratio(method, step) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        scheduler.step()
    assert learning_rate_ratio(method, 200) == 0 == learning_rate_ratio(method, 230)


def test_resets_follow_the_step_after_each_multiple(make_cell):
    method = make_cell("relora").method
    assert [step for step in range(1, 26) if is_reset(method, step)] == [9, 17, 25]
    assert not any(is_reset(make_cell("full").method, step) for step in range(100))


def test_seeds_differ_in_first_weights_and_in_what_resets_draw(make_cell):
    def after_a_reset(seed):
        run = start(make_cell("relora").model_copy(update={"seed": seed}), CPU)
        losses = [take_step(run, batch_of(step), step)["loss"].item() for step in (1, 2)]
        reset(run.model, run.optimizer, run.cell.method, seed=run.cell.seed + 9)
        return losses, next(iter(adapters(run.model).values())).A.detach()

    (ours, down), (same, down_again), (others, other_down) = map(after_a_reset, (1, 1, 2))
    assert ours == same and torch.equal(down, down_again)
    assert not set(ours) & set(others) and not torch.isclose(down, other_down).any()


def test_full_rank_steps_equal_plain_adamw(make_cell):
    cell = make_cell("full", train={"micro_batch_size": 2})
    run = start(cell, CPU)
    run.model.double()  # Adam blows rounding up, so compare where there is hardly any
    plain = build_model(cell.size, cell.model, cell.seed).double()
    plain.set_attn_implementation("sdpa")
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1.0, betas=(0.9, 0.967), weight_decay=0.01)
    for step in range(1, 7):
        row = take_step(run, batch_of(step), step)
        rate = 3e-3 * learning_rate_ratio(cell.method, step - 1)
        optimizer.param_groups[0]["lr"] = rate
        ids = batch_of(step)
        loss = functional.cross_entropy(plain(ids[:, :-1]).logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert row["loss"] == pytest.approx(loss.item(), rel=1e-12)
    for ours, theirs in zip(run.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("method", ["full", "relora", "relora_zero2"])
def test_the_update_norm_is_what_the_step_moved_in_the_layers(make_cell, method):
    run = start(make_cell(method), CPU)
    take_step(run, batch_of(1), 1)
    before = {name: value.clone() for name, value in run.model.model.layers.state_dict().items()}
    row = take_step(run, batch_of(2), 2)
    after = run.model.model.layers.state_dict()
    moved = [(after[name] - before[name]).pow(2).sum().item() for name in before if "master" not in name]
    assert row["update_norm"].item() == pytest.approx(sum(moved) ** 0.5) != 0


def test_a_reset_forgets_the_moments_and_keeps_adams_step(make_cell):
    cell = make_cell("relora", moment_reset_fraction=0.9)
    run = start(cell, CPU)
    for step in range(1, 4):
        take_step(run, batch_of(step), step)
    layers = list(adapters(run.model).values())
    reset(run.model, run.optimizer, cell.method, seed=0)
    states = [run.optimizer.state[factor] for layer in layers for factor in (layer.A, layer.B)]
    for moment in ("exp_avg", "exp_avg_sq"):
        values = torch.cat([state[moment].flatten() for state in states])
        assert (values != 0).double().mean() == pytest.approx(0.1, abs=0.03)
    assert all(state["step"] == 3 for state in states)
    assert all(layer.B.abs().max() == 0 and layer.A.abs().max() > 0 for layer in layers)


def test_the_released_variant_is_dead_until_its_first_reset(make_cell, tmp_path):
    train(make_cell("relora_released"), CPU, batch_of, tmp_path)
    log = pd.read_csv(tmp_path / "log.csv")
    assert (log.adapter_gradient_norm[log.step <= 9] == 0).all()
    assert (log.adapter_gradient_norm[log.step > 9] > 0).all()
    assert log.step[log.reset == 1].tolist() == [9, 17]


def test_checkpoints_show_the_model_before_the_reset(make_cell, tmp_path):
    cell = make_cell("relora", reset_offset=0)
    train(cell, CPU, batch_of, tmp_path)
    found = list_checkpoints(tmp_path)
    assert list(found) == [0, 8, 11, 16, 19, 24]
    assert all(b.abs().max() > 0 for _, b in load_adapters(found[8]).values())
    assert read_metadata(found[8]).scale == 2.0
    ids = batch_of(0)
    opened = AutoModelForCausalLM.from_pretrained(found[8])
    torch.testing.assert_close(opened(ids).logits, load_model(found[8])(ids).logits)


@pytest.mark.parametrize("method", ["full", "relora"])
@pytest.mark.parametrize("stop", [3, 10, 18])
def test_a_killed_run_ends_as_one_never_stopped(make_cell, tmp_path, monkeypatch, method, stop):
    cell = make_cell(method)
    train(cell, CPU, batch_of, tmp_path / "whole")

    def killed(step):
        if step == stop:
            raise KeyboardInterrupt
        return batch_of(step)

    with pytest.raises(KeyboardInterrupt):
        train(cell, CPU, killed, tmp_path / "cut")
    train(cell, CPU, batch_of, tmp_path / "cut")
    for file in ("log.csv", "checkpoints/step-000024/model.safetensors", "checkpoints/step-000016/model.safetensors"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "cut" / file).read_bytes()


def test_a_damaged_state_is_set_aside(make_cell, tmp_path):
    cell = make_cell("full")
    train(cell, CPU, batch_of, tmp_path)
    log = (tmp_path / "log.csv").read_bytes()
    file = tmp_path / "state/step-000024/state.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.warns(UserWarning, match="step-000024 is damaged"):
        train(cell, CPU, batch_of, tmp_path)
    assert (tmp_path / "log.csv").read_bytes() == log


def test_another_configurations_run_is_kept_aside(make_cell, tmp_path):
    train(make_cell("full"), CPU, batch_of, tmp_path)
    before = (tmp_path / "log.csv").read_bytes()
    other = make_cell("full", train={"eps": 1e-6})
    with pytest.warns(UserWarning, match="superseded-1"):
        train(other, CPU, batch_of, tmp_path)
    train(other, CPU, batch_of, tmp_path / "fresh")
    assert (tmp_path / "superseded-1/log.csv").read_bytes() == before
    kept = json.loads((tmp_path / "superseded-1/state/step-000024/state.json").read_text())
    assert kept["settings"]["train"]["eps"] == 1e-8, "which settings made it"
    assert (tmp_path / "log.csv").read_bytes() == (tmp_path / "fresh/log.csv").read_bytes() != before


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_next_run_recovers(make_cell, monkeypatch, tmp_path):
    cell, plain, calls = make_cell("full", train={"divergence": "stop"}), loop.mean_loss, []

    def breaks_at_step_6(run, rows):
        calls.append(0)
        return plain(run, rows) * (math.inf if len(calls) == 6 else 1.0)

    monkeypatch.setattr(loop, "mean_loss", breaks_at_step_6)
    with pytest.raises(
        UserError, match=r"inf at step 6; the last good state is .*step-000004; lower train\.learning_rate"
    ):
        train(cell, CPU, batch_of, tmp_path / "broken")
    assert pd.read_csv(tmp_path / "broken/log.csv").step.tolist() == [1, 2, 3, 4, 5, 6]
    assert [path.name for path in (tmp_path / "broken/state").iterdir()] == ["step-000004"]
    monkeypatch.undo()
    for folder in ("broken", "whole"):
        train(cell, CPU, batch_of, tmp_path / folder)
    assert (tmp_path / "broken/log.csv").read_bytes() == (tmp_path / "whole/log.csv").read_bytes()


@pytest.mark.parametrize("every", [1, 3, 100])
def test_rows_held_back_for_the_gpu_are_all_written(tmp_path, every):
    with Recorder(tmp_path, 0, 10, every) as recorder:
        for step in range(1, 8):
            numbers = {
                "loss": torch.tensor(step / 3),
                "gradient_norm": torch.tensor(1.0),
                "adapter_gradient_norm": None,
            }
            recorder.add({"step": step, "tokens": step * 10, "learning_rate": 0.1, "reset": 0} | numbers)
    assert pd.read_csv(tmp_path / "log.csv").loss.tolist() == pytest.approx([step / 3 for step in range(1, 8)])
    assert pd.read_csv(tmp_path / "timing.csv").step.tolist() == [*range(1, 8)]


def test_what_is_set_aside_never_meets_an_older_one_and_does_not_count_as_room(make_cell, monkeypatch, tmp_path):
    train(make_cell("full"), CPU, batch_of, tmp_path)
    (tmp_path / "superseded-7").mkdir()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 10**5))
    with pytest.warns(UserWarning, match="superseded-8"), pytest.raises(UserError, match="make room first"):
        train(make_cell("full", train={"eps": 1e-6}), CPU, batch_of, tmp_path)


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)  # on a machine with GPUs, too
    with pytest.raises(UserError, match=r"runtime\.device cuda needs GPU 0, and torch .* sees 0 GPU\(s\) here; set"):
        device.chosen_device("cuda")
    assert device.chosen_device("auto") == CPU
