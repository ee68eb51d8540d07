"""What the paper says of the rules of methods."""

from itertools import pairwise

import pytest
from relora_study.config.cells import base_method
from relora_study.config.reading import read_study
from relora_study.config.settings import experiments_of
from relora_study.report.experiments import told_once
from relora_study.report.rules import differing_rules, rules
from studies import ROOT


@pytest.fixture(scope="module")
def sweep():
    """A function: the cell of each method of a preset's sweep."""

    def cells(preset: str, name: str):
        experiments = experiments_of(read_study([ROOT / "config.yaml", ROOT / f"workflow/presets/{preset}.yaml"]))
        swept = experiments.sweeps.sweeps[name].cells
        return {base_method(experiments.cells[cell]): experiments.cells[cell] for cell in swept}

    return cells


@pytest.mark.parametrize("name", ["ladder", "ladder_small"])
def test_each_step_of_the_ladder_changes_one_rule(sweep, name):
    header, *steps = differing_rules(sweep("ladder", name))
    steps, full = steps[:-1], steps[-1]
    changed = [
        [column for column, old, new in zip(header[1:], before[1:], after[1:], strict=True) if old != new]
        for before, after in pairwise(steps)
    ]
    assert changed == [
        *(["adapter initialization"], ["merge"], ["restart"], ["moment mask"], ["moment reset"]),
        *(["full rank steps"], ["dropout"], ["learning rate"]),
    ]
    assert full == ["full rank", "0.003", *["–"] * (len(header) - 2)]


def test_each_change_alone_is_one(sweep):
    _, released, *alone, _ = differing_rules(sweep("ladder", "alone"))
    assert [sum(old != new for old, new in zip(released[1:], row[1:], strict=True)) for row in alone] == [1] * 8


def test_rules_that_all_methods_share_are_left_out(sweep):
    assert differing_rules(sweep("accumulation", "accumulation")) == []  # full rank and one other
    assert "targets" not in differing_rules(sweep("implementations", "implementations"))[0]


def test_a_method_without_adapters_has_no_rules_of_adapters(make_cell):
    galore = make_cell("galore", update="galore", projection_rank=4, targets=["q_proj"])
    header, *rows = rules({"relora": make_cell("relora"), "galore": galore})
    found = {name: dict(zip(header[1:], values, strict=True)) for name, *values in rows}
    assert header == ["method", "ReLoRA", "GaLore"]
    assert found["rank r"]["GaLore"] == "4" and found["merge"] == {"ReLoRA": "scaled", "GaLore": "–"}
    assert found["update"]["GaLore"] == "galore", "what tells methods apart is in the table"
    assert "betas" not in found, "what all share is not"


def test_rates_of_groups_are_rules(make_cell):
    slow = make_cell("relora", rate_ratios={"embedding": 4, "adapters": 0.25})
    found = differing_rules({"relora": make_cell("relora"), "slow": slow})
    assert found == [["method", "rate ratios"], ["ReLoRA", "–"], ["slow", "embedding 4, adapters 0.25"]]
    assert rules({"relora": make_cell("relora"), "slow": slow})[-1] == [row[-1] for row in found]
    assert "rate ratios" not in [row[0] for row in rules({"relora": make_cell("relora")})]


def test_the_rules_of_a_sweep_at_another_size_are_told_once():
    rows, others = [["method", "merge"], ["ReLoRA", "scaled"]], [["method", "merge"], ["ReLoRA", "none"]]
    told = told_once([{"name": name, "rules": found} for name, found in zip("abc", (rows, others, rows), strict=True)])
    assert told == [{"name": "a", "rules": rows}, {"name": "b", "rules": others}, {"name": "c", "rules": []}]
