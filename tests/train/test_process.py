"""The trainer as a process: killed, told to stop, out of time, started twice, short of disk."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from relora_study.errors import UserError
from relora_study.train import __main__ as command
from relora_study.train.disk import bytes_needed
from relora_study.train.loop import train
from safetensors.torch import load_file
from studies import ROOT

FILES = ["log.csv", "checkpoints/step-000011/model.safetensors", "checkpoints/step-000300/adapters.safetensors"]


def wait_for_step(folder: Path, step: int) -> None:
    for _ in range(3600):
        if (folder / "log.csv").exists() and (folder / "log.csv").read_text().count("\n") > step:
            return
        time.sleep(0.05)
    raise AssertionError(f"step {step} was not reached in three minutes")


def log_size(folder: Path) -> int:
    """The bytes of a cell's log, 0 where it has none."""
    file = folder / "log.csv"
    return file.stat().st_size if file.exists() else 0


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_a_signal_ends_goes_on_to_the_same_bytes(prepare, commands, whole, number):
    cut, arguments = prepare("cut")
    process = commands.start(arguments)
    wait_for_step(cut, 70)
    process.send_signal(number)
    code = process.wait(timeout=180)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else command.STOPPED)
    if number != signal.SIGKILL:
        assert "stopped after step" in process.said and "Traceback" not in process.said
    assert not (cut / "manifest.json").exists()
    commands.finish(arguments)
    for file in FILES:
        assert (cut / file).read_bytes() == (whole / file).read_bytes()


def test_ctrl_c_while_modules_are_still_imported_shows_no_traceback():
    """Snakemake stops all its jobs at once, and one of them may have just begun."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "relora_study.train"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "workflow")},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background test run ignores it
    )
    while not process.stderr.readline().rstrip().endswith(" relora_study"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait() == -signal.SIGINT  # typer, which comes after the imports, ends with a code
    assert "Traceback" not in rest and "KeyboardInterrupt" not in rest


@pytest.mark.slow
def test_fifty_kills_at_random_moments_leave_no_trace(prepare, commands):
    """Kills strike anywhere from the start of the process on: in steps, states, checkpoints, renames, log writes."""
    recipe = {"steps": 12_000, "state_every": 20, "checkpoint_every": 200}
    whole, arguments = prepare("whole", **recipe)
    commands.finish(arguments)
    cut, arguments = prepare("cut", **recipe)
    random, struck = np.random.default_rng(0), []
    while len(struck) < 50 and not (cut / "manifest.json").exists():
        process, before = commands.start(arguments), log_size(cut)
        if random.random() < 0.9:  # else it is killed while it starts
            while process.poll() is None and log_size(cut) == before:
                time.sleep(0.01)
        time.sleep(random.uniform(0, 0.8))
        process.kill()
        struck.append(log_size(cut))
    commands.finish(arguments)
    print(f"{len(struck)} kills, at these bytes of log.csv: {struck}")
    assert len(struck) == 50 and len(set(struck)) > 30
    assert pd.read_csv(cut / "log.csv").step.tolist() == list(range(1, 12_001))
    for file in [
        "log.csv",
        "checkpoints/step-000200/model.safetensors",
        "checkpoints/step-012000/adapters.safetensors",
    ]:
        assert (cut / file).read_bytes() == (whole / file).read_bytes()


@pytest.mark.long
def test_a_time_limit_splits_a_run_without_a_trace(prepare, commands, whole):
    split, arguments = prepare("split", time_limit=0.02)
    codes = []
    while 0 not in codes and len(codes) < 300:  # each run takes a step at least
        codes.append(commands.run(arguments).returncode)
    assert codes[0] == command.STOPPED and codes[-1] == 0
    for file in FILES:
        assert (split / file).read_bytes() == (whole / file).read_bytes()
    assert pd.read_csv(split / "timing.csv").step.tolist() == list(range(1, 301))


def test_a_second_trainer_is_refused_and_a_dead_one_holds_nothing(prepare, commands):
    folder, arguments = prepare("cell", steps=100_000)
    first = commands.start(arguments)
    wait_for_step(folder, 3)
    second = commands.start(arguments)
    assert second.wait(timeout=180) == 1
    assert "is being trained by another process" in second.said and "Traceback" not in second.said
    first.kill()
    (folder / "log.csv").unlink()
    third = commands.start(arguments)
    wait_for_step(folder, 3)
    third.send_signal(signal.SIGTERM)
    assert third.wait(timeout=180) == command.STOPPED


@pytest.mark.long
def test_one_that_waits_goes_on_where_the_other_ended(prepare, commands, whole):
    """What Snakemake starts waits: the job of a Snakemake that was killed may still train the cell."""
    cell, arguments = prepare("cell")
    first = commands.start(arguments)
    wait_for_step(cell, 3)
    first.send_signal(signal.SIGSTOP)  # so that it cannot end before the second begins
    second = commands.start([*arguments, "--wait"])
    second.wait_to_say("waiting for it to end")
    first.kill()
    assert second.wait(timeout=120) == 0, second.said
    for file in FILES:
        assert (cell / file).read_bytes() == (whole / file).read_bytes()


def test_one_that_waits_can_be_stopped(prepare, commands):
    folder, arguments = prepare("cell", steps=100_000)
    commands.start(arguments)
    wait_for_step(folder, 3)
    second = commands.start([*arguments, "--wait"])
    second.wait_to_say("waiting for it to end")
    second.send_signal(signal.SIGINT)
    assert second.wait(timeout=180) != 0


def test_too_little_disk_is_said_before_the_first_step(prepare, monkeypatch, make_cell):
    folder, _ = prepare("cell")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 1000))
    with pytest.raises(UserError, match="make room first"):
        train(make_cell("relora"), torch.device("cpu"), None, folder)
    assert not (folder / "checkpoints").exists()


def test_the_bytes_said_are_the_bytes_written(make_cell, tmp_path):
    cell = make_cell("relora", train={"state_every": 8})
    run = train(cell, torch.device("cpu"), lambda _: torch.randint(300, (4, 17)), tmp_path)
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in run.model.parameters()]
    every, trains = sum(count for count, _ in counts), sum(count for count, learns in counts if learns)
    said = bytes_needed(cell, every) - 4 * (every + 2 * trains)  # the state that is there only while written
    tensors = [load_file(file).items() for file in tmp_path.rglob("*.safetensors")]
    uncounted = ("random/", "/step")
    written = sum(
        tensor.nbytes for table in tensors for name, tensor in table if not any(part in name for part in uncounted)
    )
    assert written == pytest.approx(said, rel=0.01)
