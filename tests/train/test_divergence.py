"""A training whose numbers are no longer finite is the cell's result: recorded, read so far, and not tried again."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from relora_study.config import Cell
from relora_study.config.schedule import due_steps
from relora_study.dynamics.cell import cell_table, open_subject
from relora_study.errors import UserError
from relora_study.model.checkpoints import list_checkpoints
from relora_study.storage.contracts import diverged_at, read_cell_manifest
from relora_study.train import loop
from relora_study.train.loop import train
from relora_study.train.state import fingerprint
from safetensors.torch import load_file
from studies import write_yaml

from .test_parallel import batch_of, train_in_two

CPU = torch.device("cpu")
RUNAWAY = {"learning_rate": 1e25, "checkpoint_every": 4, "checkpoint_offset": 3, "state_every": 2}  # climbs from 0


def never(step):
    raise AssertionError(f"step {step + 1} was trained again")


def runaway(make_cell, **train) -> Cell:
    """A cell whose learning rate is small for some steps, and then throws the weights out of float32's range."""
    return make_cell("full", train=RUNAWAY | train, warmup_steps=20)


def breaking(monkeypatch, at: int) -> None:
    """Have the loss of step ``at`` be infinite."""
    plain, calls = loop.mean_loss, []

    def mean_loss(run, rows):
        calls.append(0)
        return plain(run, rows) * (float("inf") if len(calls) == at else 1.0)

    monkeypatch.setattr(loop, "mean_loss", mean_loss)


def test_a_rate_that_throws_the_weights_away_ends_as_a_record(make_cell, tmp_path, capsys):
    run = train(runaway(make_cell), CPU, batch_of, tmp_path)
    step = run.diverged_at
    assert step is not None and 1 < step < 24
    log = pd.read_csv(tmp_path / "log.csv")
    assert log.step.tolist() == list(range(1, step + 1)) == pd.read_csv(tmp_path / "timing.csv").step.tolist()
    finite = np.isfinite(log[["loss", "gradient_norm"]]).all(axis=1).tolist()
    assert all(finite[:-1])
    assert list(list_checkpoints(tmp_path)) == due_steps(run.cell, step) != due_steps(run.cell)
    for file in tmp_path.rglob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(file).values()), file
    said = capsys.readouterr().err
    assert f"diverged at step {step} (" in said and "diverged.json" in said


@pytest.mark.parametrize("at", [6, 8])  # 8 leaves a checkpoint and a state
def test_what_is_recorded_is_not_trained_again(make_cell, monkeypatch, tmp_path, at):
    breaking(monkeypatch, at)
    cell = make_cell("relora")
    assert train(cell, CPU, batch_of, tmp_path).diverged_at == at
    monkeypatch.undo()
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = train(cell, CPU, never, tmp_path)
    assert again.diverged_at == at
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files
    assert list(list_checkpoints(tmp_path, due_steps(cell, at))) == [0]


def test_stop_after_a_record_goes_on_to_the_bytes_of_a_run_that_never_broke(make_cell, monkeypatch, tmp_path):
    breaking(monkeypatch, 6)
    train(make_cell("relora"), CPU, batch_of, tmp_path / "broken")
    monkeypatch.undo()
    train(make_cell("relora", train={"divergence": "stop"}), CPU, batch_of, tmp_path / "broken")
    train(make_cell("relora"), CPU, batch_of, tmp_path / "whole")
    assert (tmp_path / "broken/log.csv").read_bytes() == (tmp_path / "whole/log.csv").read_bytes()
    assert not (tmp_path / "broken/diverged.json").exists()


def test_other_settings_train_anew_and_keep_the_record_aside(make_cell, monkeypatch, tmp_path):
    breaking(monkeypatch, 2)  # before any state
    train(make_cell("full"), CPU, batch_of, tmp_path)
    monkeypatch.undo()
    with pytest.warns(UserWarning, match="superseded-1"):
        run = train(make_cell("full", train={"eps": 1e-6}), CPU, batch_of, tmp_path)
    assert run.diverged_at is None and len(pd.read_csv(tmp_path / "log.csv")) == 24
    assert json.loads((tmp_path / "superseded-1/diverged.json").read_text())["step"] == 2


def test_a_damaged_checkpoint_before_the_end_is_made_again(make_cell, monkeypatch, tmp_path):
    breaking(monkeypatch, 12)
    cell = make_cell("relora")
    train(cell, CPU, batch_of, tmp_path)
    whole = (tmp_path / "checkpoints/step-000008/model.safetensors").read_bytes()
    (tmp_path / "checkpoints/step-000008/model.safetensors").unlink()
    monkeypatch.undo()
    breaking(monkeypatch, 12 - 4)  # step 12 again, behind the state of step 4
    with pytest.warns(UserWarning, match="step-000008"):
        assert train(cell, CPU, batch_of, tmp_path).diverged_at == 12
    assert (tmp_path / "checkpoints/step-000008/model.safetensors").read_bytes() == whole


def test_weights_that_overflow_leave_no_checkpoint(make_cell, monkeypatch, tmp_path):
    """Loss and gradient of step 8 are finite, its update is not; a checkpoint and a state are due."""
    plain = loop._optimizer_step

    def overflowing(run):
        moved = plain(run)
        if next(iter(run.optimizer.state.values()))["step"] == 8:
            next(run.model.parameters()).data[0, 0] = torch.inf
        return moved

    monkeypatch.setattr(loop, "_optimizer_step", overflowing)
    assert train(make_cell("full"), CPU, batch_of, tmp_path).diverged_at == 8
    assert list(list_checkpoints(tmp_path)) == [0]
    assert "embed_tokens" in json.loads((tmp_path / "diverged.json").read_text())["reason"]


def test_what_came_before_is_read(make_cell, monkeypatch, tmp_path):
    breaking(monkeypatch, 14)
    cell = make_cell("relora")
    write_yaml(tmp_path / "config.yaml", cell.model_dump())
    train(cell, CPU, batch_of, tmp_path)
    batch = batch_of(0)
    with pytest.raises(UserError, match="missing or damaged"):
        open_subject(tmp_path, batch, 2, 8)
    manifest = {"parameters": 1, "trainable_parameters": 1, "steps": 24, "tokens": 1, "resets": [], "threads": 1}
    manifest |= {"cell": "c", "peak_memory_bytes": 1, "device": "cpu", "processes": 1, "platform": "p"}
    manifest |= {"versions": {}, "final_sha256": "", "diverged_at": 14}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    table = cell_table(open_subject(tmp_path, batch, 2, 8), tmp_path / "dynamics")
    assert sorted(set(table.step)) == [0, 8, 11]
    assert np.isfinite(table.value[table.reason == ""]).all()


def test_the_command_ends_well_with_a_manifest_and_does_nothing_the_second_time(prepare, commands):
    folder, arguments = prepare("cell", steps=300, learning_rate=1e25)
    done = commands.run(arguments)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    manifest = read_cell_manifest(folder)
    assert manifest.steps == 300 and 1 < manifest.diverged_at < 300
    assert manifest.tokens == manifest.diverged_at * 4 * 16 and diverged_at(folder) == manifest.diverged_at
    assert all(step <= manifest.diverged_at for step in manifest.resets)
    log = (folder / "log.csv").read_bytes()
    (folder / "manifest.json").unlink()  # as Snakemake does before a job
    again = commands.run(arguments)
    assert again.returncode == 0 and (folder / "log.csv").read_bytes() == log
    keys = {"peak_memory_bytes": 0, "ended": None}  # of the job, not of the training
    assert manifest.model_dump() | keys == read_cell_manifest(folder).model_dump() | keys


def test_the_command_that_shall_stop_fails_as_before(prepare, commands):
    folder, arguments = prepare("cell", steps=300, learning_rate=1e25, divergence="stop")
    done = commands.run(arguments)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "lower train.learning_rate, or lengthen warmup_steps and rewarmup_steps, and run again" in done.stderr
    assert not (folder / "manifest.json").exists() and not (folder / "diverged.json").exists()


@pytest.mark.long
def test_both_processes_end_together(make_cell, tmp_path):
    folder = tmp_path / "cell"
    train_in_two({folder: runaway(make_cell)}, tmp_path)
    step = json.loads((folder / "diverged.json").read_text())["step"]
    assert pd.read_csv(folder / "log.csv").step.tolist() == list(range(1, step + 1))
    left = {path: path.read_bytes() for path in (folder / "log.csv", folder / "diverged.json")}
    for rank in (0, 1):
        (folder / f"{rank}.st").unlink()  # what each process writes at its end
    train_in_two({folder: runaway(make_cell)}, tmp_path)
    assert all((folder / f"{rank}.st").exists() for rank in (0, 1))
    assert {path: path.read_bytes() for path in left} == left, "nothing trains again"


def test_the_switch_does_not_change_what_trained(make_cell):
    stop, record = (make_cell("full", train={"divergence": kind}) for kind in ("stop", "record"))
    assert fingerprint(stop, "") == fingerprint(record, "")
