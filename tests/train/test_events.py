"""TensorBoard's event files: the numbers of log.csv, each step once after a stop, and the weights as without them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from relora_study.errors import UserError
from relora_study.model.checkpoints import list_checkpoints, read_metadata
from relora_study.train import __main__ as command
from relora_study.train import events, loop
from relora_study.train.loop import train
from relora_study.train.state import fingerprint
from studies import lay_out
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CPU = torch.device("cpu")


def batch_of(step):
    return torch.randint(300, (4, 17), generator=torch.Generator().manual_seed(step))


def watched(cell):
    return cell.model_copy(update={"runtime": cell.runtime.model_copy(update={"tensorboard": True})})


def curves(cell_dir: Path) -> dict[str, pd.Series]:
    """The curves that TensorBoard shows of a cell: values by step, a step as often as it is shown."""
    shown = EventAccumulator(str(cell_dir / events.EVENTS), size_guidance={"scalars": 0}).Reload()
    points = {name: shown.Scalars(name) for name in shown.Tags()["scalars"]}
    return {name: pd.Series([p.value for p in each], [p.step for p in each]) for name, each in points.items()}


def check_curves(cell_dir: Path) -> None:
    """Each column of the log is a curve with its numbers, and each step occurs once."""
    log = pd.read_csv(cell_dir / "log.csv", index_col="step").dropna(axis="columns", how="all")
    shown = curves(cell_dir)
    assert set(shown) == set(log.columns) and len(log) == 24
    for name, column in log.items():
        np.testing.assert_array_equal(shown[name].index, column.dropna().index, err_msg=name)
        np.testing.assert_allclose(shown[name], column.dropna().astype("float32"), rtol=2e-7, err_msg=name)


def weights(cell_dir: Path) -> str:
    """The hashes of the last checkpoint."""
    step, place = max(list_checkpoints(cell_dir).items())
    return f"{step} {read_metadata(place).sha256}"


def test_curves_are_the_logs_and_the_weights_are_those_without(make_cell, tmp_path):
    cell = make_cell("relora")
    train(cell, CPU, batch_of, tmp_path / "plain")
    train(watched(cell), CPU, batch_of, tmp_path / "watched")
    check_curves(tmp_path / "watched")
    assert not (tmp_path / "plain" / events.EVENTS).exists()
    assert weights(tmp_path / "watched") == weights(tmp_path / "plain")
    assert (tmp_path / "watched/log.csv").read_bytes() == (tmp_path / "plain/log.csv").read_bytes()


def test_after_a_stop_each_step_occurs_once(make_cell, monkeypatch, tmp_path):
    """Once after a clean stop, and once after steps 5 and 6, which the state of step 4 does not know."""
    cell = watched(make_cell("relora", train={"divergence": "stop"}))
    mean_loss, seen = loop.mean_loss, []

    def breaks_at_step_6(run, rows):
        seen.append(1)
        return mean_loss(run, rows) * (torch.inf if len(seen) == 6 else 1)

    monkeypatch.setattr(loop, "mean_loss", breaks_at_step_6)
    with pytest.raises(UserError, match="inf at step 6"):
        train(cell, CPU, batch_of, tmp_path)
    assert list(curves(tmp_path)["loss"].index) == [1, 2, 3, 4, 5, 6]
    monkeypatch.undo()
    asked = iter([False] * 5 + [True])
    with pytest.raises(loop.Stopped, match="step 10"):
        train(cell, CPU, batch_of, tmp_path, lambda: next(asked))
    train(cell, CPU, batch_of, tmp_path)
    assert len(list((tmp_path / events.EVENTS).iterdir())) == 3
    check_curves(tmp_path)


def test_watching_is_no_other_training(make_cell, tmp_path):
    cell = make_cell("full")
    assert fingerprint(watched(cell), "") == fingerprint(cell, "")
    assert "tensorboard" not in cell.model_dump()["runtime"], "settings files stay as they were"
    train(watched(cell), CPU, batch_of, tmp_path)
    with pytest.warns(UserWarning, match="superseded-1"):
        train(watched(make_cell("full", train={"eps": 1e-6})), CPU, batch_of, tmp_path)
    assert (tmp_path / "superseded-1" / events.EVENTS).exists()
    check_curves(tmp_path)


def test_a_missing_package_is_one_line_before_training(prepare, make_cell, monkeypatch, tmp_path):
    folder, _ = prepare("cell")
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("release_memory:", "tensorboard: true\n  release_memory:"))
    monkeypatch.setattr(events, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"runtime\.tensorboard = true: .* is not installed; pip install tensorboard"):
        command.train_cell(folder / "config.yaml", tmp_path / "tokens", 1)
    assert [file.name for file in folder.iterdir()] == ["config.yaml"]
    events.check_tensorboard(make_cell("full").runtime)


HIDDEN = """import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "tensorboard" else found(name, *rest)
"""


@pytest.mark.end_to_end
@pytest.mark.long
def test_a_missing_package_stops_a_run_before_any_job(tmp_path):
    folder = lay_out(tmp_path / "study")
    (folder / "hidden").mkdir()
    (folder / "hidden/sitecustomize.py").write_text(HIDDEN)
    run = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", "--config", "runtime={tensorboard: true}"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(folder / "hidden")}
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "error: runtime.tensorboard = true: the package tensorboard is not installed" in done.stderr
