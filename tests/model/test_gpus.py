"""Jobs of one machine take GPUs of their own; no test needs a GPU."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from relora_study.model import device

ROOT = Path(__file__).parents[2]
JOB = """
import sys
from relora_study.model.device import claim_gpus
print(claim_gpus(int(sys.argv[1]), 3), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path) -> Iterator[None]:
    """A machine without a scheduler, with a place of its own for locks."""
    for name in device.CHOSEN_ELSEWHERE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(device, "_held", {})
    yield
    for lock in device._held.values():
        lock.release()


@pytest.fixture
def job() -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts jobs that claim GPUs of three, print them, and hold them until they are ended."""
    started: list[subprocess.Popen] = []

    def start(count: int) -> subprocess.Popen:
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow")}
        started.append(subprocess.Popen([sys.executable, "-c", JOB, str(count)], env=environment, text=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_each_job_gets_gpus_of_its_own_and_one_more_waits_for_a_killed_one(job):
    first, second = job(1), job(1)
    taken = {first.stdout.readline(), second.stdout.readline()}
    assert taken <= {"[0]\n", "[1]\n", "[2]\n"} and len(taken) == 2
    third = job(2)
    assert "1 of 2 GPUs are free, of 3; waiting" in third.stderr.readline()
    fourth = job(1)
    assert "other jobs wait for GPUs; waiting behind them" in fourth.stderr.readline()
    first.kill()
    pair = third.stdout.readline()
    assert pair in {"[0, 1]\n", "[0, 2]\n", "[1, 2]\n"}
    second.kill()
    assert fourth.stdout.readline().strip("[]\n") not in pair


@pytest.mark.parametrize("name", device.CHOSEN_ELSEWHERE)
def test_who_was_given_gpus_claims_none(monkeypatch, tmp_path, name):
    monkeypatch.setenv(name, "5")
    assert device.claim_gpus(2, 4) == [0, 1]
    assert list(tmp_path.iterdir()) == []


def test_jobs_share_the_only_gpu(tmp_path):
    assert device.claim_gpus(1, 1) == [0]
    assert list(tmp_path.iterdir()) == []


def test_a_process_computes_on_the_gpu_that_it_claimed(job, monkeypatch):
    current = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert job(1).stdout.readline() == "[0]\n"
    assert device.chosen_device("auto") == device.chosen_device("cuda") == torch.device("cuda", 1)
    assert current == [1, 1]
    assert device.chosen_device("cpu") == device.CPU
