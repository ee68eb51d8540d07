"""Several processes of a training stop together: on torchrun's signals, in time, and with one whole state."""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from relora_study.config import Runtime
from relora_study.session.snakemake import launch_command
from relora_study.train import loop
from relora_study.train.log import Recorder
from relora_study.train.loop import Stopped, train

ROOT = Path(__file__).parents[2]
# The trainer's command, whose steps last a second and whose rows are held back as on a GPU.
SLOW = """
import os, time
from functools import partial
from relora_study.train import __main__ as command
from relora_study.train import loop, state
from relora_study.train.log import Recorder
def late(seconds, function, *arguments):
    time.sleep(float(seconds))
    return function(*arguments)
loop.take_step = partial(late, 1, loop.take_step)
loop.Recorder = lambda place, done, tokens, every, *events: Recorder(place, done, tokens, 20, *events)
state._write = partial(late, os.environ["SAVING"], state._write)
command.main()
"""


def steps_saved(folder: Path) -> list[int]:
    return [int(place.name.removeprefix("step-")) for place in (folder / "state").glob("step-*")]


@pytest.fixture
def in_two(raw, prepare, tmp_path) -> Iterator[Callable[..., tuple[Path, subprocess.Popen]]]:
    """Starts the slow training by two processes, with the command of the rule; its standard error is in said.txt."""
    started = []

    def start(saving: int = 0, **recipe) -> tuple[Path, subprocess.Popen]:
        folder, (_, *arguments) = prepare("cell", state_every=400, checkpoint_every=400, **recipe)
        (tmp_path / "slow.py").write_text(SLOW)
        runtime = Runtime(**raw["runtime"] | {"processes": 2})
        launch = shlex.split(launch_command(runtime, 2).removesuffix("-m"))
        environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow"), "SAVING": str(saving)}
        with (tmp_path / "said.txt").open("wb") as said:
            command = [*launch, tmp_path / "slow.py", *arguments]
            started.append(subprocess.Popen(command, env=environment, stderr=said))
        return folder, started[0]

    yield start
    for process in started:
        process.terminate()
        process.wait()


def wait_for(happened: Callable[[], bool]) -> None:
    for _ in range(3600):
        if happened():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen in three minutes")


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_torchrun_stops_all_processes_within_a_step(in_two, tmp_path, number):
    """SLURM's KillWait is 30 s, and its signals of a time limit reach torchrun alone where a site says so."""
    folder, process = in_two()
    wait_for((folder / "checkpoints/step-000000").exists)
    time.sleep(4)  # some steps
    process.send_signal(number)
    began = time.monotonic()
    assert process.wait(timeout=180) == 1  # torchrun's own: Snakemake tries again, whatever the code
    assert time.monotonic() - began < 15
    said = (tmp_path / "said.txt").read_text()
    assert said.count("tiny-relora-s1: stopped after step") == 2, said
    (step,) = steps_saved(folder)
    assert pd.read_csv(folder / "log.csv").step.tolist() == list(range(1, step + 1)), "held rows are written, too"
    assert step < 20


@pytest.mark.long
def test_no_process_leaves_while_the_first_still_saves(in_two, tmp_path):
    """Where one process ends by itself, torchrun kills the others 30 seconds later, whatever its options say."""
    folder, process = in_two(saving=35, time_limit=0.02)
    assert process.wait(timeout=180) == 1
    assert len(steps_saved(folder)) == 1, (tmp_path / "said.txt").read_text()


def test_a_training_asks_after_every_step_though_it_holds_rows_back(make_cell, monkeypatch, tmp_path):
    monkeypatch.setattr(
        loop, "Recorder", lambda place, done, tokens, every, *events: Recorder(place, done, tokens, 20, *events)
    )
    asked = iter([False, False, True])
    ids = torch.randint(300, (4, 17))
    cell = make_cell("full", train={"state_every": 400, "checkpoint_every": 400})
    with pytest.raises(Stopped, match="after step 3"):
        train(cell, torch.device("cpu"), lambda _: ids, tmp_path, partial(next, asked))
    assert pd.read_csv(tmp_path / "log.csv").step.tolist() == [1, 2, 3]
    assert steps_saved(tmp_path) == [3]
