"""The blocks of the preset implementations.yaml fail the questions that the public implementations would."""

import importlib.util
from pathlib import Path

import pytest
import torch
from relora_study.conformance.observation import observe
from relora_study.conformance.questions import findings
from relora_study.conformance.training import Training
from relora_study.storage.files import read_yaml

ROOT = Path(__file__).parents[2]
FAULTS = {
    "relora": {4},
    "upstream": {1, 4},
    "upstream_1b": {1, 4},
    "upstream_shared_mask": {1},
    "upstream_scale": {1},  # dead for good: the other questions find no update to judge
    "upstream_pr16": {4},
    "relora_released": {1, 2, 4},
    "relora_zero2": {1, 2, 3, 4},
    "low_rank_geometry": {1, 4},
    "memory_efficient": {1, 7},  # no reset: the rate never restarts, and there is no update to judge
    "axolotl_before": {4, 5},
    "axolotl": {4},
}


def ours():
    spec = importlib.util.spec_from_file_location("ours", ROOT / "docs/conformance/ours.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def faults(block: str) -> set[int]:
    torch.manual_seed(0)
    found = findings(observe(Training(ours().method(block))))
    return {int(one.question[0]) for one in found if one.verdict == "fault"}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("block", FAULTS)
def test_each_block_fails_the_questions_of_its_rules_and_no_other(block):
    assert faults(block) == FAULTS[block]


def test_every_block_of_the_preset_is_here():
    preset = read_yaml(ROOT / "workflow/presets/implementations.yaml")
    assert set(preset["sweeps"]["implementations"]["methods"]) == {*FAULTS, "full"}
