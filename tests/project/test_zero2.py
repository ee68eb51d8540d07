"""DeepSpeed's ZeRO-2 undoes a restart, and our `relora_zero2` models it, as docs/audit.md says."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import zero2

ROOT = Path(__file__).parents[2]
ENGINES = ROOT / ".venv-zero2"


def test_what_returned_is_told_entry_by_entry():
    old, redrawn = torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([8.0, 8.0, 8.0, 8.0])
    now = torch.tensor([0.0, 1.1, 8.0, 7.0])
    assert zero2.returned(old, redrawn, now) == {"equal_to_old": 0.25, "equal_to_redrawn": 0.25, "nearer_to_old": 0.5}


def test_a_cycle_ends_with_the_step_before_the_reset_and_has_its_largest_difference():
    losses = {name: [1.0] * zero2.STEPS for name in ("an engine", "relora_zero2", "relora_released")}
    losses["an engine"][21] += 0.25  # the first step after the first reset
    losses["relora_zero2"][83] += 0.5
    found = {name: {"losses": each, "resets": {"21": {"nearer_to_old": 0.75}}} for name, each in losses.items()}
    rows = zero2.table(found).set_index(["case", "steps"]).loc["an engine"]
    assert rows.index.tolist() == ["1-21", "22-41", "42-61", "62-81", "82-84"]
    assert rows.from_relora_released.tolist() == [0.0, 0.25, 0.0, 0.0, 0.0]
    assert rows.from_relora_zero2.tolist() == [0.0, 0.25, 0.0, 0.0, 0.5]
    assert rows.nearer_to_old["22-41"] == 0.75 and rows.nearer_to_old.notna().sum() == 1


def test_the_toys_of_both_methods_differ_in_the_restart_alone():
    undone, redrawn = (zero2.toy(method).method for method in ("relora_zero2", "relora_released"))
    assert undone.model_copy(update={"restart": "redraw"}) == redrawn and undone != redrawn


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> pd.DataFrame:
    """The benchmark's table, by case and steps."""
    output = tmp_path_factory.mktemp("zero2") / "zero2.csv"
    command = [ENGINES / "bin/python", "benchmarks/zero2.py", "--output", output]
    environment = {"PYTHONPATH": "workflow", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return pd.read_csv(output).set_index(["case", "steps"])


@pytest.mark.long
@pytest.mark.skipif(not (ENGINES / "done").exists(), reason="no .venv-zero2: make .venv-zero2/done")
class TestARealEngine:
    @pytest.mark.parametrize("precision", ["float32", "bf16"])
    @pytest.mark.parametrize("processes", ["1 process", "2 processes"])
    def test_brings_the_old_adapters_back_and_keeps_the_merge(self, measured, precision, processes):
        rows = measured.loc[f"ZeRO-2, {precision}, {processes}"].iloc[1:]
        assert len(rows) == 4 and (rows.nearer_to_old >= 0.99).all() and (rows.keeps_merge == "yes").all()
        assert (rows.equal_to_redrawn < 0.01).all()

    def test_has_the_losses_of_relora_zero2_and_not_of_relora_released(self, measured):
        rows = measured.loc["ZeRO-2, float32, 1 process"]
        assert (rows.from_relora_zero2.iloc[:3] < 1e-5).all()
        assert rows.from_relora_released.iloc[0] < 1e-5 and (rows.from_relora_released.iloc[1:] > 0.01).all()

    @pytest.mark.parametrize("case", ["ZeRO-2, float32, masters rewritten, too", "one device, no DeepSpeed"])
    def test_keeps_the_restart_once_the_masters_are_rewritten_as_one_device_does(self, measured, case):
        rows = measured.loc[case]
        assert (rows.nearer_to_old.iloc[1:] <= 0.01).all()
        assert (rows.from_relora_released.iloc[:3] < 1e-5).all() and (rows.from_relora_zero2.iloc[1:] > 0.01).all()
