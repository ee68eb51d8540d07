"""The plan: operations against torch's own counter, and the paper's counts."""

import pandas as pd
import pytest
import torch
from relora_study.cost import __main__ as plan
from relora_study.cost.__main__ import app, cell_plan, measured_hours
from relora_study.cost.estimates import expected_tokens_per_second, flops_per_token
from relora_study.model.build import build_model, first_model
from relora_study.model.kernels import matmul
from relora_study.model.kernels.cross_entropy import head_cross_entropy
from relora_study.model.relora import add_adapters
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

FACTORIZED = {"factor_rank": 4, "targets": ["q_proj", "down_proj"]}
GALORE = {"update": "galore", "projection_rank": 4, "targets": ["q_proj", "down_proj"]}
OTHERS = {
    "factorized": FACTORIZED,
    "galore": GALORE,
    "fira": GALORE | {"update": "fira"},
    "apollo": GALORE | {"update": "apollo"},
}


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("full", {}),
        ("relora", {}),
        ("relora", {"targets": ["q_proj", "down_proj"]}),
        ("relora", {"dropout": 0.0}),
        ("factorized", FACTORIZED),
        ("galore", GALORE),
    ],
)
def test_operations_are_those_that_torch_counts(monkeypatch, make_cell, method, changes):
    monkeypatch.setattr(matmul, "USE_ONEDNN", False)  # nor does the counter know oneDNN's products
    cell = make_cell(method, **changes)
    model = first_model(cell)
    if cell.method.rank:
        add_adapters(model, cell.method)
    model.set_attn_implementation("eager")  # the counter knows no fused attention of the CPU
    ids = torch.randint(cell.model.vocab_size, (2, cell.model.context_length + 1))
    in_place = {torch.ops.aten.addmm_: lambda _, a, b, **__: 2 * a[0] * a[1] * b[1]}  # the counter knows addmm alone
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        head_cross_entropy(hidden, model.lm_head.weight, ids[:, 1:]).backward()
    assert counter.get_total_flops() == flops_per_token(cell) * ids[:, 1:].numel()


def test_a_plan_holds_what_a_cell_trains_and_writes(make_cell):
    cell = make_cell("relora")
    model = build_model(cell.size, cell.model, 0)
    add_adapters(model, cell.method)
    row = cell_plan(cell)
    assert row["parameters"] == sum(p.numel() for p in model.parameters())
    assert row["trainable"] == sum(p.numel() for p in model.parameters() if p.requires_grad)
    for mode in ("eager", "compiled"):
        speed = row[f"tokens_per_second_H200_{mode}"]
        assert speed == expected_tokens_per_second(cell, mode)
        assert row[f"hours_H200_{mode}"] == pytest.approx(row["tokens"] / speed / 3600)
    assert measured_hours(cell) > 0


@pytest.mark.parametrize("method", OTHERS)
def test_a_plan_counts_what_low_rank_methods_hold(make_cell, method):
    """By hand, for a model of width 24 with 2 layers, where q is 24 x 24 and down 24 x 48."""
    plain, row = cell_plan(make_cell("full")), cell_plan(make_cell(method, **OTHERS[method]))
    whole = plain["parameters"]
    if method == "factorized":
        assert row["parameters"] == row["trainable"] == whole - 2 * (24 * 24 + 24 * 48) + 2 * 4 * (48 + 72)
        numbers = 4 * row["parameters"]
    else:
        assert row["parameters"] == row["trainable"] == whole
        numbers = 4 * whole - 2 * 2 * (24 * 24 + 24 * 48) + 2 * (4 * (24 + 2 * 24) + 4 * (24 + 2 * 48))
        assert row["flops"] == plain["flops"]
    assert row["memory_GiB"] * 2**30 == pytest.approx(4 * numbers)
    assert row["hours_H200_eager"] > 0
    assert measured_hours(make_cell(method, **OTHERS[method])) > 0


def test_a_measured_step_is_one_micro_batch_on_the_machine_at_hand(make_cell, monkeypatch):
    cell = make_cell("full", train={"micro_batch_size": 2})  # of a batch of 4, in 24 steps
    cell = cell.model_copy(update={"runtime": cell.runtime.model_copy(update={"device": "cuda", "processes": 2})})
    shapes, clock = [], iter(range(0, 1000, 10))  # a step takes ten seconds
    monkeypatch.setattr(plan, "take_step", lambda run, ids, step: shapes.append(ids.shape))
    monkeypatch.setattr(plan.time, "perf_counter", lambda: next(clock))
    assert measured_hours(cell) == pytest.approx(10 * (4 / 2) * 24 / 3600)
    assert set(shapes) == {(2, cell.model.context_length + 1)}


def test_the_command_plans_presets(tmp_path):
    configs = ["config.yaml", "workflow/presets/audit.yaml"]
    found = CliRunner().invoke(app, [*configs, "--output", str(tmp_path / "plan.csv")])
    assert found.exit_code == 0, found.output
    assert "paper_tiny-relora_zero2" in found.output and "One of 3 seeds" in found.output
    header, *rows = (tmp_path / "plan.csv").read_text().splitlines()
    assert len(rows) == 4 and "published_gpu_hours" in header
    assert "follow from those that an H200 reached" in found.output


EXPERIMENTS = """
study: {sizes: [tiny], methods: [full, relora], seeds: [1, 2]}
data: {validation_fraction: 0.05}
sweeps:
  as_it_is: {methods: [relora]}
  longer: {methods: [full], space: {grid: {steps: [300, 1200]}}}
  again: {methods: [full, relora], space: {grid: {steps: [1200]}}}
tuning: {space: {grid: {learning_rate: [1.0e-3, 2.0e-3, 3.0e-3, 4.0e-3]}}, rungs: [120, 300, 600]}
"""


def test_a_plan_counts_sweeps_and_searches(tmp_path):
    """By hand: halving takes 4 x 120 + 2 x 180 + 1 x 300 steps for four candidates, and 600 with a second seed."""
    (tmp_path / "mine.yaml").write_text(EXPERIMENTS)
    found = CliRunner().invoke(app, ["config.yaml", str(tmp_path / "mine.yaml"), "--output", str(tmp_path / "p.csv")])
    assert found.exit_code == 0, found.output
    table = pd.read_csv(tmp_path / "p.csv").set_index("cell")
    counts = {"tiny-full": 2, "tiny-relora": 2, "sweep as_it_is": 2, "sweep longer": 4, "sweep again": 2, "search": 10}
    assert table.trainings.to_dict() == counts, "a cell counts once: the study's own, else of the first sweep with it"
    steps = table.tokens / 1024
    assert steps.tolist() == [600, 600, 600, (300 + 1200) / 2, 1200, (4 * 120 + 2 * 180 + 1 * 300 + 600) / 5]
    assert table.hours_H200_eager["sweep longer"] == pytest.approx(table.hours_H200_eager["tiny-full"] * 750 / 600)
    assert table.hours_H200_eager["search"] == pytest.approx(table.hours_H200_eager[:2].mean() * 348 / 600, rel=1e-3)
    assert table.disk_GB["search"] < table.disk_GB[:2].mean() < table.disk_GB["sweep again"], "fewer, more checkpoints"
    whole = (table.trainings * table.disk_GB).sum()
    assert "of all 22 trainings" in found.output and f"Disk: {whole:.0f} GB" in found.output


def test_a_plan_of_shards_says_what_the_corpus_takes(tmp_path):
    configs = ["config.yaml", "workflow/presets/pilot.yaml"]
    found = CliRunner().invoke(app, [*configs, "--output", str(tmp_path / "plan.csv")])
    assert found.exit_code == 0, found.output
    assert f"{51 * 20_480 * 2049 * 2 / 1e9:.1f} GB for token ids" in found.output
    assert "11,282,784" in found.output
    table = pd.read_csv(tmp_path / "plan.csv")
    eager, compiled = (round(table[f"hours_H200_{mode}"].sum()) for mode in ("eager", "compiled"))
    assert eager > compiled and f"compiled to eager: {compiled} to {eager}." in found.output
