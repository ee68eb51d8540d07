"""The command line: exit codes, the table and the file, and mistakes as one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from relora_study.conformance import __main__ as command
from relora_study.conformance.__main__ import app
from relora_study.conformance.adapters import checked_adapters, found_adapters
from relora_study.conformance.observation import observe
from relora_study.conformance.training import Training, load
from relora_study.errors import UserError
from torch import nn
from typer.testing import CliRunner

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def test_a_fault_ends_with_exit_code_1_and_is_in_the_table_and_in_the_file(tmp_path):
    shutil.copy(HERE / "faulty.py", tmp_path / "faulty.py")
    (tmp_path / "mine.py").write_text("import faulty\n\n\ndef bad():\n    return faulty.training('no merge')\n")
    target, output = f"{tmp_path / 'mine.py'}:bad", tmp_path / "answers.json"
    result = CliRunner().invoke(app, [target, "--output", str(output)])
    assert result.exit_code == 1
    saved = json.loads(output.read_text())
    assert [one["verdict"] for one in saved] == ["sound", "fault", "sound", "sound", "sound", "fault", "sound"]
    assert saved[5]["numbers"]["merged_share"] == 0.0
    assert all(one["question"] in result.output and one["evidence"] in result.output for one in saved)


def test_sound_code_ends_with_exit_code_0():
    assert CliRunner().invoke(app, [str(ROOT / "docs/conformance/plain.py")]).exit_code == 0


def test_an_unusable_file_ends_with_exit_code_2_and_one_line(tmp_path):
    command = [sys.executable, "-m", "relora_study.conformance", str(tmp_path / "none.py")]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'none.py'}: no such Python file\n"


GIVEN = """
import torch
from types import SimpleNamespace
layer = torch.nn.Linear(3, 3)
layer.A, layer.B, layer.scale = torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.zeros(3, 2)), 1.0
optimizer = torch.optim.AdamW(layer.parameters())
def training():
    return SimpleNamespace(model=layer, optimizer=optimizer, step=step, reset=reset)
def reset(): pass
def step():
    (layer(torch.ones(3)).sum() + (layer.B @ layer.A).sum()).backward()
    optimizer.step()
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("import torch", "import torchh", "line 2: the file raised ModuleNotFoundError"),
        ("import torch", "import torch (", "raised SyntaxError"),
        ("import torch", "raise SystemExit(0)", "raised SystemExit"),
        ("import torch", "import os; os._exit(0)", "line 2: the file raised SystemExit"),
        ("    optimizer.step()", "    __import__('os')._exit(0)", "line 12: step() raised SystemExit"),
        ("def training", "def trainings", "no function training()"),
        ("    return Simple", "    return None and Simple", "without model, optimizer, step, reset"),
        ("model=layer", "model=3", "model must be a torch.nn.modules.module.Module"),
        ("optimizer=optimizer", "optimizer=layer", "optimizer must be a torch.optim.optimizer.Optimizer"),
        ("reset=reset", "reset=reset, period=2", "period must be a whole number of steps, at least 3, not 2"),
        ("    optimizer.step()", "    1 / 0", "line 12: step() raised ZeroDivisionError"),
        ("    optimizer.step()", "", "step() took 0 steps of the optimizer"),
        ("layer(torch.ones(3))", "layer.weight", "step() does not call the model itself; give forward()"),
        ("reset(): pass", "reset(): raise ValueError('a\\nb')", "reset() raised ValueError: a b"),
        (", 1.0\n", ", None\n", "no number named scaling or scale or s,"),
        ("layer.A, layer.B", "layer.C, layer.D", "no layer with factors named lora_A/lora_B or"),
        ("reset=reset", "reset=reset, adapters=lambda: []", "adapters() returned no rows"),
        ("reset=reset", "reset=reset, adapters=lambda: [3]", "row 0 must be (W, A, B, scale)"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(tmp_path, old, new, message):
    file = tmp_path / "mine.py"
    assert old in GIVEN
    file.write_text(GIVEN.replace(old, new, 1))
    with pytest.raises(UserError) as error:
        observe(load(str(file)))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_worker_of_the_users_code_may_end_itself(tmp_path):
    file = tmp_path / "mine.py"
    fork = "    process = os.fork()\n    if not process: os._exit(0)\n    os.waitpid(process, 0)\n    optimizer.step()"
    file.write_text(GIVEN.replace("import torch", "import os, torch", 1).replace("    optimizer.step()", fork))
    leave = os._exit
    assert len(load(str(file)).step()) == 1
    assert os._exit is leave


@pytest.mark.parametrize("name", ["mine.py", "types.py"])  # the second is a library's, too
def test_a_file_with_a_dataclass_and_later_annotations_is_read(tmp_path, name):
    file = tmp_path / name
    head = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    file.write_text(f"{head}@dataclass\nclass Recipe:\n    rate: float = 1.0\n{GIVEN}")
    assert len(load(str(file)).step()) == 1
    assert sys.modules["types"].SimpleNamespace


def test_an_error_of_the_check_is_no_answer(monkeypatch, capsys):
    monkeypatch.setattr(command, "observe", lambda training: training.lost)
    monkeypatch.setattr(sys, "argv", ["conformance", str(ROOT / "docs/conformance/plain.py")])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2 and "AttributeError" in capsys.readouterr().err


def test_rows_of_the_wrong_shapes_are_refused():
    W, A, B = torch.zeros(3, 5), torch.zeros(2, 5), torch.zeros(3, 2)
    assert len(checked_adapters([(W, A, B, 2.0)])) == 1
    with pytest.raises(UserError, match=r"not \[5, 3\], \[2, 5\], \[3, 2\]"):
        checked_adapters([(W.mT, A, B, 2.0)])
    with pytest.raises(UserError, match="row 0"):
        checked_adapters([(W, B, A, 2.0)])


def test_a_layer_with_two_weights_that_fit_must_be_told():
    layer = nn.Linear(4, 4, bias=False)
    layer.A, layer.B, layer.scale = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4)), 1.0
    assert found_adapters(layer)[0].weight is layer.weight  # A and B have its shape, too
    layer.other = nn.Parameter(torch.ones(4, 4))
    with pytest.raises(UserError, match="2 weights of shape"):
        found_adapters(layer)


def test_a_scale_that_goes_through_a_function_is_read_behind_it():
    layer = nn.Linear(4, 3, bias=False)
    layer.A_lora, layer.B_lora = nn.Linear(4, 2, bias=False), nn.Linear(2, 3, bias=False)
    layer.s = nn.Parameter(torch.tensor([0.5]))
    assert found_adapters(layer)[0].number() == 0.5
    layer._scale = lambda: layer.s.tanh()
    assert found_adapters(layer)[0].number() == pytest.approx(0.4621, abs=1e-4)


def test_the_output_is_without_dropout_and_leaves_each_modules_mode(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(GIVEN)
    given = load(str(file))._given
    given.model = nn.Sequential(given.model, nn.Dropout(0.5), nn.Dropout(0.5).eval())
    given.step = lambda: (given.model(torch.ones(100, 3)).sum().backward(), given.optimizer.step())
    training = Training(given)
    training.step()
    torch.testing.assert_close(training.output(), training.output(), rtol=0, atol=0)
    assert [part.training for part in given.model] == [True, True, False]
