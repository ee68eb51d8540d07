"""Two processes train as one does: the same losses, and the same adapters on both after every reset."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
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
folder = Path(sys.argv[1])
batch_of = lambda step: torch.randint(300, (4, 17), generator=torch.Generator().manual_seed(step))
with parallel.process_group("cpu") as device:
    run = train(read_section(Cell, folder / "config.yaml"), device, batch_of, folder)
    weights = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    save_file(weights, folder / f"{parallel.rank()}.st")
"""


def batch_of(step):
    return torch.randint(300, (4, 17), generator=torch.Generator().manual_seed(step))


def train_in_two(cell, folder: Path) -> None:
    write_yaml(folder / "config.yaml", cell.model_dump())
    (folder / "worker.py").write_text(WORKER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, folder / "worker.py", folder], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("method", ["full", "relora"])
def test_two_processes_equal_one_with_accumulation(make_cell, tmp_path, method):
    switches = {} if method == "full" else {"dropout": 0.0}
    cell = make_cell(method, train={"micro_batch_size": 2}, **switches)
    train(cell, torch.device("cpu"), batch_of, tmp_path / "one")
    train_in_two(cell, tmp_path / "two")
    one, two = (pd.read_csv(tmp_path / name / "log.csv") for name in ("one", "two"))
    assert one.loss.tolist() == pytest.approx(two.loss.tolist(), rel=1e-4)
    assert one.gradient_norm.tolist() == pytest.approx(two.gradient_norm.tolist(), rel=1e-2)


def test_both_processes_hold_the_same_weights_though_each_drops_out_on_its_own(make_cell, tmp_path):
    cell = make_cell("relora", train={"steps": 17})  # ends on a reset
    train_in_two(cell, tmp_path)
    first, second = (load_file(tmp_path / f"{rank}.st") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(tensor.abs().max() == 0 for name, tensor in first.items() if name.endswith(".B"))
    state = load_file(tmp_path / "state/step-000017/state.safetensors")
    assert not torch.equal(state["random/0/cpu"], state["random/1/cpu"])
