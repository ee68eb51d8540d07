"""Two processes train as one does: the same losses, and the same adapters on both after every reset."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from relora_study.config import Cell
from relora_study.train.loop import train
from safetensors.torch import load_file
from studies import write_yaml

ROOT = Path(__file__).parents[2]
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


def batch_of(step):
    return torch.randint(300, (4, 17), generator=torch.Generator().manual_seed(step))


def train_in_two(cells: dict[Path, Cell], place: Path) -> None:
    """Train each cell in its folder, one after the other, by the two processes that one launch starts."""
    for folder, cell in cells.items():
        write_yaml(folder / "config.yaml", cell.model_dump())
    (place / "worker.py").write_text(WORKER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": "1"}
    command = [*launch, place / "worker.py", *cells]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def in_two(make_cell, tmp_path_factory) -> dict[str, tuple[Path, Cell]]:
    """Cells, each with the folder where two processes trained it; the last ends on a reset."""
    place = tmp_path_factory.mktemp("in two")
    cells = {
        "full": make_cell("full", train={"micro_batch_size": 2}),
        "relora": make_cell("relora", train={"micro_batch_size": 2}, dropout=0.0),
        "dropout": make_cell("relora", train={"steps": 17}),
    }
    train_in_two({place / name: cell for name, cell in cells.items()}, place)
    return {name: (place / name, cell) for name, cell in cells.items()}


@pytest.mark.long
@pytest.mark.parametrize("method", ["full", "relora"])
def test_two_processes_equal_one_with_accumulation(in_two, tmp_path, method):
    folder, cell = in_two[method]
    train(cell, torch.device("cpu"), batch_of, tmp_path / "one")
    one, two = (pd.read_csv(place / "log.csv") for place in (tmp_path / "one", folder))
    assert one.loss.tolist() == pytest.approx(two.loss.tolist(), rel=1e-4)
    assert one.gradient_norm.tolist() == pytest.approx(two.gradient_norm.tolist(), rel=1e-2)


@pytest.mark.long
def test_both_processes_hold_the_same_weights_though_each_drops_out_on_its_own(in_two):
    folder, _ = in_two["dropout"]
    first, second = (load_file(folder / f"{rank}.st") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(tensor.abs().max() == 0 for name, tensor in first.items() if name.endswith(".B"))
    state = load_file(folder / "state/step-000017/state.safetensors")
    assert not torch.equal(state["random/0/cpu"], state["random/1/cpu"])
