"""The presets against the paper's own numbers, and their jobs, without network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from relora_study.analysis import published_recipe
from relora_study.analysis.published_recipe import has_papers_shape
from relora_study.config import cells, read_study
from relora_study.config.cells import make_cell
from relora_study.config.schedule import is_due, is_evaluated, is_reset, learning_rate_ratio
from relora_study.config.settings import experiments_of
from relora_study.config.variants import sweep_variants
from relora_study.model.build import count_parameters

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config.yaml"


PRESETS = sorted(place.stem for place in (ROOT / "workflow/presets").glob("*.yaml"))


def study(name: str):
    return read_study([CONFIG, ROOT / f"workflow/presets/{name}.yaml"])


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_possible_and_so_are_its_experiments(name):
    experiments = experiments_of(study(name))
    assert {sweep for sweep, settings in experiments.sweeps.sweeps.items() if not settings.cells} == set()
    assert f"presets/{name}.yaml" in (ROOT / f"workflow/presets/{name}.yaml").read_text(), "how it is run"


# arXiv 2509.12960, tables of hyper-parameters and of sizes, and what its released code runs with.
SHAPES = {
    "tiny": dict(d_model=96, intermediate_size=384),
    "small": dict(d_model=384, intermediate_size=1536),
}
COMMON = dict(num_hidden_layers=12, num_attention_heads=12, num_key_value_heads=4)
MODEL = dict(vocab_size=50304, context_length=2048, rms_norm_eps=1e-6, rope_theta=1e4, initialization="pytorch")
RECIPE = dict(steps=20_000, batch_size=1024, learning_rate=3e-4, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.01)
FULL = dict(rank=0, schedule="linear", warmup_steps=2500, horizon_steps=200_000, reset_period=None)
RELORA = dict(
    rank=16,
    alpha=32,
    dropout=0.1,
    targets=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    trainable_scale=False,
    adapters_only=False,
    full_rank_steps=0,
    reset_period=2000,
    reset_offset=1,
    moment_reset="random",
    moment_reset_fraction=0.999,
    schedule="jagged_cosine",
    warmup_steps=2000,
    rewarmup_steps=100,
    minimum_learning_rate_ratio=0.1,
    horizon_steps=200_000,
)
SWITCHES = {  # adapter_initialization, merge, restart: as described, as released, as it runs under ZeRO-2
    "relora": ("kaiming", "scaled", "redraw"),
    "relora_released": ("zero", "unscaled", "redraw"),
    "relora_zero2": ("zero", "unscaled", "undone"),
}
PARAMETERS = {  # in all, and those that train; counted on the authors' own code
    ("tiny", "full"): (11_282_784, 11_282_784),
    ("tiny", "relora"): (11_682_144, 10_060_128),
    ("small", "full"): (64_595_328, 64_595_328),
    ("small", "relora"): (66_192_768, 40_240_512),
}


def values(section, expected: dict) -> dict:
    return {key: getattr(section, key) for key in expected}


def test_the_paper_preset_is_the_papers_recipe():
    paper = study("paper")
    assert values(paper.model, MODEL) == MODEL
    assert values(paper.train, RECIPE) == RECIPE
    assert paper.study.seeds == [42] and paper.runtime.precision == "bfloat16"
    assert paper.study.sizes == ["tiny", "small"]
    assert set(paper.study.methods) == {"full", *SWITCHES}
    for name, shape in SHAPES.items():
        assert paper.sizes[name].model_dump() == shape | COMMON
    assert values(paper.methods["full"], FULL) == FULL
    for name, (initialization, merge, restart) in SWITCHES.items():
        switches = dict(adapter_initialization=initialization, merge=merge, restart=restart)
        assert values(paper.methods[name], RELORA | switches) == RELORA | switches


def test_the_paper_preset_reads_the_papers_corpus_and_texts():
    paper = study("paper")
    shards = paper.data.hub_pretokenized
    assert paper.data.source == "hub_pretokenized" and shards.repository == "pico-lm/pretokenized-dolma"
    assert paper.data.tokenizer.source == "hub" and paper.data.tokenizer.name == "allenai/OLMo-7B-0724-hf"
    assert (shards.shards_in_all, shards.rows_per_shard, shards.column) == (10_000, 20_480, "input_ids")
    assert shards.training_shards == range(1000)
    assert len(shards.training_shards) * shards.rows_per_shard == 20_000 * 1024
    perplexity, pairs = paper.evaluation.perplexity, paper.evaluation.minimal_pairs
    assert (perplexity.source, perplexity.path, perplexity.text_column, perplexity.max_tokens) == (
        "hub",
        None,
        "text",
        2048,
    )
    assert (pairs.source, pairs.start_token, pairs.leading_space) == ("url", False, False)


@pytest.mark.parametrize("preset", ["paper", "pilot"])
def test_parameters_are_the_published_ones_to_the_unit(preset):
    for cell in cells(study(preset)).values():
        kind = "relora" if cell.method.rank else "full"
        assert count_parameters(cell) == PARAMETERS[cell.size_name, kind], cell.name
        assert has_papers_shape(cell)
        assert published_recipe.PARAMETERS[cell.size_name] == PARAMETERS[cell.size_name, "full"][0]


def test_the_papers_cells_read_the_published_number_of_tokens():
    for cell in cells(study("paper")).values():
        assert cell.train.steps * cell.train.batch_size * cell.model.context_length == published_recipe.TOKENS


def test_checkpoints_are_the_papers():
    """Every 1,000 steps; ReLoRA's adapters also 100 steps after each restart, which follows step 2,000 k + 1."""
    for cell in cells(study("paper")).values():
        due = [step for step in range(20_001) if is_due(cell, step)]
        readings = [] if cell.method_name == "full" else [*range(2100, 20_000, 2000)]
        assert due == sorted([*range(0, 20_001, 1000), *readings])
        assert [step for step in due if is_evaluated(cell.train, step)] == [*range(0, 20_001, 1000)]
        resets = [step for step in range(20_001) if is_reset(cell.method, step)]
        assert [step + 99 for step in resets] == readings


# What the pilot counts in steps is a twentieth of the paper's; Adam's memory stays half a cycle.
SCALED = ["train.steps", "train.checkpoint_every", "train.checkpoint_offset", "data.hub_pretokenized.shards"]
SCALED += ["methods.full.warmup_steps", "methods.full.horizon_steps"]
SCALED += [
    f"methods.{method}.{key}"
    for method in SWITCHES
    for key in ("reset_period", "warmup_steps", "rewarmup_steps", "horizon_steps")
]
OF_ITS_OWN = ["train.betas", "train.state_every", "report.title", "runtime.processes"]


def flat(section: dict, before: str = "") -> dict:
    parts = [
        flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
        for key, value in section.items()
    ]
    return {key: value for part in parts for key, value in part.items()}


def test_the_pilot_is_a_twentieth_of_the_paper_and_nothing_else():
    paper, pilot = flat(study("paper").model_dump()), flat(study("pilot").model_dump())
    assert {key for key in paper if paper[key] != pilot[key]} == {*SCALED, *OF_ITS_OWN}
    assert all(pilot[key] * 20 == paper[key] for key in SCALED)
    for found in (paper, pilot):
        assert 2 / (1 - found["train.betas"][1]) == pytest.approx(found["methods.relora.reset_period"])
        assert found["train.steps"] == 10 * found["methods.relora.reset_period"]


@pytest.mark.parametrize("preset", ["paper", "pilot"])
def test_a_presets_jobs_are_known_without_network(preset, tmp_path):
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--directory", tmp_path, "--quiet", "host"]
    command += ["--snakefile", ROOT / "Snakefile", "--configfile", CONFIG, ROOT / f"workflow/presets/{preset}.yaml"]
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    for name in ("Snakefile", "workflow", "config.yaml", "resources", "paper"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **nowhere}, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout.partition("Job stats:")[2], re.MULTILINE))
    assert jobs["pretrain"] == jobs["evaluate"] == jobs["dynamics"] == "8"
    assert jobs["shards"] == jobs["convert"] == jobs["tokenizer"] == jobs["enough"] == "1"
    assert not {"fetch", "documents", "tokens"} & set(jobs)


@pytest.mark.parametrize("name", ["tokens", "factors"])
def test_where_rates_end_at_0_all_do_and_lengths_grow_with_the_training(name):
    preset = study(name)
    variants = [variant.cell for sweep in (preset.sweeps or {}).values() for variant in sweep_variants(preset, sweep)]
    for cell in [*cells(preset).values(), *variants]:
        method, steps = cell.method, cell.train.steps
        assert method.horizon_steps == steps and learning_rate_ratio(method, steps - 1) < 1e-4, cell.name
        assert method.warmup_steps == steps // 10 and method.full_rank_steps in (0, steps // 5), cell.name
        if method.schedule == "jagged_cosine":
            assert (method.reset_period, method.rewarmup_steps) == (steps // 10, steps // 200), cell.name


# Of each repository: norm of clipping, weight decay, share of the training at full rank, first reset after a period,
# what a reset clears and how much. Read at the commits that the preset names.
UPSTREAM = (1.0, 0.0, 5_000 / 20_000, 1, "random", 0.999)
RULES = {
    "upstream": UPSTREAM,
    "upstream_1b": (1.0, 0.01, 1_000 / 130_000, 1, "magnitude", 0.8),
    "upstream_shared_mask": UPSTREAM,
    "upstream_scale": UPSTREAM,
    "upstream_pr16": UPSTREAM,
    "relora_released": (None, 0.01, 0, 1, "random", 0.999),
    "relora_zero2": (None, 0.01, 0, 1, "random", 0.999),
    "low_rank_geometry": (1.0, 0.0, 0, 1, "random", 0.99),
    "memory_efficient": (None, 0.0, 0, 1, "none", 0.999),  # the last does nothing
    "axolotl_before": (1.0, 0.0, 0, 0, "magnitude", 0.9),
    "axolotl": (1.0, 0.0, 0, 0, "magnitude", 0.9),
    "relora": (None, 0.01, 0, 1, "random", 0.999),
}
OWN = {"rank": 8, "alpha": 16, "dropout": 0.1, "reset_period": 60, "schedule": "jagged_cosine", "warmup_steps": 60}


def test_the_implementations_have_the_rules_of_their_repositories_and_share_all_else():
    preset = study("implementations")
    assert preset.sweeps["implementations"].methods == [*RULES, "full"]
    for name, (clipping, decay, share, offset, clears, most) in RULES.items():
        cell = make_cell(preset, "tiny", name, 42)
        assert (cell.train.gradient_clipping, cell.train.weight_decay) == (clipping, decay), name
        assert cell.method.full_rank_steps == round(share * cell.train.steps), name
        first = next(step for step in range(1, 601) if is_reset(cell.method, step))
        assert first == 60 * max(1, -(-cell.method.full_rank_steps // 60)) + offset, name
        assert (cell.method.moment_reset, cell.method.moment_reset_fraction) == (clears, most), name
        assert values(cell.method, OWN) == OWN and cell.train.learning_rate == 3e-3, name


def test_the_second_sweep_of_implementations_is_the_first_with_a_longer_climb_and_trains_full_rank_once():
    preset = study("implementations")
    made = (sweep_variants(preset, preset.sweeps[name]) for name in ("implementations", "rewarmup"))
    first, second = ({variant.cell.name: variant.cell for variant in variants} for variants in made)
    assert {name.replace("+rewarmup_steps=30", "") for name in second} == {
        name for name, cell in first.items() if cell.method.rewarmup_steps
    }
    for name, cell in second.items():
        plain = first[name.replace("+rewarmup_steps=30", "")]
        assert (plain.method.rewarmup_steps, cell.method.rewarmup_steps) == (3, 30)
        assert cell.method.model_copy(update={"rewarmup_steps": 3}) == plain.method and cell.train == plain.train
