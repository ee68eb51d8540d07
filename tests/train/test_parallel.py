"""Two processes train as one does: the same losses, and the same adapters on both after every reset."""

import os
import subprocess
import sys
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch
from relora_study.config import Cell
from relora_study.train import parallel
from relora_study.train.loop import train
from safetensors.torch import load_file
from studies import write_yaml

ROOT = Path(__file__).parents[2]
PROJECTED = {"targets": ["q_proj", "down_proj"], "projection_rank": 4, "projection_period": 5}
METHODS = {
    "galore": {"update": "galore", **PROJECTED},
    "fira": {"update": "fira", **PROJECTED},
    "apollo": {"update": "apollo", **PROJECTED},
    "factorized": {"factor_rank": 4, "targets": ["q_proj", "down_proj"]},
    "slow": {"targets": ["q_proj", "down_proj"], "rate_ratios": {"embedding": 2.0, "targets": 0.25}},
}
LIMIT = 0.625  # below the gradient's norm in some steps
WORKER = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from relora_study.config import Cell, read_section
from relora_study.train import parallel
from relora_study.train.loop import train
batch_of = lambda step: torch.randint(300, (4, 17), generator=torch.Generator().manual_seed(step))
with parallel.process_group("cpu") as device:
    for folder in map(Path, sys.argv[1:]):
        run = train(read_section(Cell, folder / "config.yaml"), device, batch_of, folder)
        weights = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
        save_file(weights, folder / f"{parallel.rank()}.st")
"""

# A sum may wait for two seconds; the first process comes six seconds late to an exchange of objects, as if it hashed.
DELAYED = """
import time
from datetime import timedelta
from relora_study.train import parallel
with parallel.process_group("cpu", timedelta(seconds=2)):
    time.sleep(6 * (parallel.rank() == 0))
    print(parallel.gather(parallel.rank()), parallel.any_process(parallel.rank() == 1), flush=True)
"""


def batch_of(step):
    return torch.randint(300, (4, 17), generator=torch.Generator().manual_seed(step))


def train_in_two(cells: dict[Path, Cell], place: Path) -> None:
    """Train each cell in its folder, one after the other, by the two processes that one launch starts."""
    for folder, cell in cells.items():
        write_yaml(folder / "config.yaml", cell.model_dump())
    run_in_two(WORKER, place, cells)


def run_in_two(worker: str, place: Path, arguments: Iterable[Path] = ()) -> str:
    """What two processes of the program ``worker``, which lies in ``place``, print."""
    (place / "worker.py").write_text(worker)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": "1"}
    command = [*launch, place / "worker.py", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def in_two(make_cell, tmp_path_factory) -> dict[str, tuple[Path, Cell]]:
    """Cells, each with the folder where two processes trained it; the last ends on a reset."""
    place = tmp_path_factory.mktemp("in two")
    cells = {
        "full": make_cell("full", train={"micro_batch_size": 2}),
        "relora": make_cell("relora", train={"micro_batch_size": 2}, dropout=0.0),
        "dropout": make_cell("relora", train={"steps": 17}),
        "clipped": make_cell("relora", train={"micro_batch_size": 2, "gradient_clipping": LIMIT}, dropout=0.0),
        **{name: make_cell(name, train={"micro_batch_size": 2}, **switches) for name, switches in METHODS.items()},
    }
    train_in_two({place / name: cell for name, cell in cells.items()}, place)
    return {name: (place / name, cell) for name, cell in cells.items()}


@pytest.mark.long
@pytest.mark.parametrize("method", ["full", "relora", *METHODS])
def test_two_processes_equal_one_with_accumulation(in_two, tmp_path, method):
    folder, cell = in_two[method]
    train(cell, torch.device("cpu"), batch_of, tmp_path / "one")
    one, two = (pd.read_csv(place / "log.csv") for place in (tmp_path / "one", folder))
    assert one.loss.tolist() == pytest.approx(two.loss.tolist(), rel=1e-4)
    assert one.gradient_norm.tolist() == pytest.approx(two.gradient_norm.tolist(), rel=1e-2)
    if method in METHODS:
        weights, others = (load_file(folder / f"{rank}.st") for rank in (0, 1))
        assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.long
def test_two_processes_clip_the_gradient_of_the_whole_batch_as_one_does(in_two, tmp_path):
    folder, cell = in_two["clipped"]
    train(cell, torch.device("cpu"), batch_of, tmp_path)
    one, two = (pd.read_csv(place / "log.csv") for place in (tmp_path, folder))
    assert one.gradient_norm.min() < LIMIT < one.gradient_norm.max()
    for log in (one, two):
        clipped = log.gradient_norm.clip(upper=LIMIT).tolist()
        assert log.clipped_gradient_norm.tolist() == pytest.approx(clipped, rel=1e-5)
    for column in ("loss", "gradient_norm", "clipped_gradient_norm"):
        assert one[column].tolist() == pytest.approx(two[column].tolist(), rel=1e-4), column
    first, second = (load_file(folder / f"{rank}.st") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.long
def test_both_processes_hold_the_same_weights_though_each_drops_out_on_its_own(in_two):
    folder, _ = in_two["dropout"]
    first, second = (load_file(folder / f"{rank}.st") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(tensor.abs().max() == 0 for name, tensor in first.items() if name.endswith(".B"))
    state = load_file(folder / "state/step-000017/state.safetensors")
    assert not torch.equal(state["random/0/cpu"], state["random/1/cpu"])


@pytest.mark.long
def test_processes_wait_for_a_late_first_one_longer_than_for_a_sum(tmp_path):
    said = run_in_two(DELAYED, tmp_path)  # two processes write to one pipe, and lines may run into each other
    assert said.count("[0, 1]") == said.count("True") == 2


def test_drawing_alike_keeps_the_generator_of_this_processs_gpu_alone(monkeypatch):
    """On a machine with several GPUs, PyTorch would warn, and make a context on each."""
    kept = []

    @contextmanager
    def fork(devices, **_):
        kept.append(devices)
        yield

    monkeypatch.setattr(torch.random, "fork_rng", fork)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    for on_gpu in (False, True):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda on_gpu=on_gpu: on_gpu)
        monkeypatch.setattr(torch, "manual_seed", lambda _: None)
        with parallel.drawing_alike(1):
            pass
    assert kept == [[], [3]]


def test_drawing_alike_restores_the_generator_on_a_machine_with_idle_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    before = torch.get_rng_state()
    with parallel.drawing_alike(1):
        first = torch.rand(3)
    with parallel.drawing_alike(1):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_each_process_takes_its_own_of_the_gpus_that_its_machines_first_process_claimed(monkeypatch):
    """Two machines with two processes each; the last one of the second machine."""
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(parallel, "rank", lambda: 3)
    monkeypatch.setattr(parallel, "gather", lambda mine: [[0, 1], mine, [2, 5], mine])
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert parallel._gpu_of_this_process() == torch.device("cuda", 5)
