"""What only an NVIDIA GPU can show of training, evaluation and plan: `pytest -m gpu` (tests/gpu/README.md)."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from relora_study.config import Cell, cells, read_study
from relora_study.cost.__main__ import measured_hours
from relora_study.evaluate.prefix_tree import log_probabilities
from relora_study.model.build import build_model
from relora_study.model.kernels.cross_entropy import head_cross_entropy, head_log_probabilities
from relora_study.model.relora import adapters
from relora_study.model.scoring import negative_log_likelihoods
from relora_study.train.loop import mean_loss, take_step, train
from relora_study.train.resets import reset
from relora_study.train.run import start
from safetensors.torch import load_file
from studies import write_yaml
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
CELLS = ["tiny-full", "tiny-relora", "small-full", "small-relora"]
FUSED = {"flash", "cudnn", "efficient"}  # PyTorch's attention that never holds all scores


def paper_cell(name: str, layers: int | None = None, train: dict | None = None, **runtime) -> Cell:
    """A cell of the paper preset for one GPU, with one micro-batch a step."""
    presets = [ROOT / "config.yaml", ROOT / "workflow/presets/paper.yaml"]
    cell = cells(read_study(presets))[f"{name}-s42"]
    shape = {"num_hidden_layers": layers} if layers else {}
    recipe = {"batch_size": cell.train.micro_batch_size} | (train or {})
    return cell.model_copy(
        update={
            "size": cell.size.model_copy(update=shape),
            "train": cell.train.model_copy(update=recipe),
            "runtime": cell.runtime.model_copy(update={"processes": 1, **runtime}),
        }
    )


def undropped(cell: Cell) -> Cell:
    return cell.model_copy(update={"method": cell.method.model_copy(update={"dropout": 0.0})})


def batch(cell: Cell, seed: int = 0) -> torch.Tensor:
    shape = (cell.train.batch_size, cell.model.context_length + 1)
    return torch.randint(cell.model.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def small_training(name: str, **runtime) -> Cell:
    recipe = {
        "steps": 24,
        "batch_size": 4,
        "micro_batch_size": 2,
        "checkpoint_every": 12,
        "checkpoint_offset": 0,
        "state_every": 12,
    }
    cell = paper_cell(name, layers=2, train=recipe, **runtime)
    return cell.model_copy(update={"model": cell.model.model_copy(update={"context_length": 256, "vocab_size": 512})})


def attention_kernels(act) -> set[str]:
    """The kinds of attention that PyTorch ran in ``act``: flash, cudnn, efficient or math."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        act()
        torch.cuda.synchronize()
    names = [event.key.removeprefix("aten::_scaled_dot_product_") for event in recorded.key_averages()]
    return {kind for kind in (*FUSED, "attention_math") for name in names if name.startswith(kind)}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", CELLS)
def test_training_in_bfloat16_has_fused_attention(seen, name, compiled):
    run = start(paper_cell(name, layers=2, compile=compiled), GPU)
    take_step(run, batch(run.cell), 1)
    kernels = attention_kernels(lambda: take_step(run, batch(run.cell), 2))
    seen("attention, training in bfloat16", f"{name}, {'compiled' if compiled else 'eager'}", ", ".join(kernels))
    assert kernels and kernels <= {"flash", "cudnn"}


@pytest.mark.parametrize("name", ["tiny-full", "small-full"])
def test_evaluation_in_float32_holds_no_scores_of_all_pairs(seen, name):
    cell = paper_cell(name, layers=2)
    model = build_model(cell.size, cell.model, 0).to(GPU).eval()
    rows = batch(cell)[:, :-1].tolist()
    evaluate = lambda: negative_log_likelihoods(model, rows, 16 * cell.model.context_length)  # noqa: E731
    kernels = attention_kernels(evaluate)
    torch.cuda.reset_peak_memory_stats()
    evaluate()
    peak = torch.cuda.max_memory_allocated() / 2**30
    scores = 4 * 16 * cell.size.num_attention_heads * cell.model.context_length**2 / 2**30
    words = f"{', '.join(kernels)}; peak {peak:.2f} GiB, where all scores of a layer take {scores:.2f}"
    seen("attention, evaluation in float32", f"{name}, 16 rows", words)
    assert kernels <= FUSED


def sentences(vocabulary: int) -> list[tuple[int, ...]]:
    """Pairs of sentences that share a beginning and differ in a word."""
    draw = np.random.default_rng(0)
    shared = [tuple(draw.integers(vocabulary, size=draw.integers(2, 9)).tolist()) for _ in range(60)]
    return [start + tuple(draw.integers(vocabulary, size=5).tolist()) for start in shared for _ in range(2)]


@pytest.mark.parametrize("name", ["tiny-full", "small-full"])
def test_scores_of_prefix_trees_are_the_cpus(seen, name):
    cell = paper_cell(name, layers=2)
    model, pairs = build_model(cell.size, cell.model, 0).eval(), sentences(cell.model.vocab_size)
    on_cpu = np.array(log_probabilities(model, pairs, 2048))
    model.to(GPU)
    kernels = attention_kernels(lambda: log_probabilities(model, pairs, 2048))
    error = np.abs(np.array(log_probabilities(model, pairs, 2048)) / on_cpu - 1).max()
    seen("prefix trees against the CPU", name, f"{', '.join(kernels)}; largest difference {error:.1e} of a sum")
    assert error < 1e-5 and kernels <= FUSED


def test_the_head_agrees_with_cross_entropy_in_float64(seen):
    draw = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(5000, 96, generator=draw), torch.randn(50304, 96, generator=draw) / 10
    targets = torch.randint(50304, (5000,), generator=draw)
    exact = functional.cross_entropy((hidden.double() @ weight.double().mT), targets, reduction="none").to(GPU)
    hidden, weight, targets = hidden.to(GPU), weight.to(GPU), targets.to(GPU)
    scores = head_log_probabilities(hidden, weight, torch.arange(5000, device=GPU), targets)
    loss = head_cross_entropy(hidden, weight, targets)
    errors = (scores + exact).abs().max().item(), abs(loss.item() - exact.mean().item())
    seen("head in float32 against float64", "5,000 tokens", f"scores {errors[0]:.1e} nats, mean loss {errors[1]:.1e}")
    assert errors[0] < 1e-4 and errors[1] < 1e-5


def loss_and_gradients(cell: Cell) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of a micro-batch, and the gradient of every parameter that trains."""
    run = start(cell, GPU)
    loss = mean_loss(run, batch(cell).to(GPU))
    loss.backward()
    return loss.item(), {name: p.grad for name, p in run.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ["tiny-full", "tiny-relora", "small-full", "small-relora"])
def test_compiled_and_bfloat16_gradients_are_eager_float32_ones_but_for_rounding(seen, name):
    cell = undropped(paper_cell(name, layers=2, train={"batch_size": 4, "micro_batch_size": 4}))
    variant = lambda **runtime: cell.model_copy(update={"runtime": cell.runtime.model_copy(update=runtime)})  # noqa: E731
    exact, gradients = loss_and_gradients(variant(precision="float32", compile=False))
    for precision, compiled, bound in [("float32", True, 1e-4), ("bfloat16", False, 3e-2), ("bfloat16", True, 3e-2)]:
        loss, found = loss_and_gradients(variant(precision=precision, compile=compiled))
        # A is not compared where it begins: B is zero there, so the gradient of A is.
        errors = {key: (found[key] - g).norm() / g.norm() for key, g in gradients.items() if g.norm()}
        worst = max(errors, key=errors.__getitem__)
        case = f"{name}, {precision}, {'compiled' if compiled else 'eager'}"
        words = f"loss {abs(loss / exact - 1):.1e}; worst gradient {errors[worst]:.1e}, of {worst} (relative)"
        seen("against eager float32", case, words)
        assert abs(loss / exact - 1) < bound / 10 and errors[worst] < bound


def test_first_weights_and_draws_of_a_reset_are_the_cpus(seen):
    cell = small_training("tiny-relora")
    runs = [start(cell, device) for device in (CPU, GPU)]
    firsts = [{name: tensor.cpu() for name, tensor in run.model.state_dict().items()} for run in runs]
    assert all(torch.equal(firsts[0][name], firsts[1][name]) for name in firsts[0])
    for run in runs:
        take_step(run, batch(cell), 1)
        reset(run.model, run.optimizer, cell.method, seed=7, rank=cell.method.rank)
    ours, theirs = ([layer.A.detach().cpu() for layer in adapters(each.model).values()] for each in runs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    seen("first weights and a restart's draws", "tiny-relora", "bit for bit the CPU's")


@pytest.mark.parametrize("name", ["tiny-full", "tiny-relora", "tiny-relora_zero2"])
def test_the_host_waits_for_no_number_in_a_step(seen, name):
    run = start(paper_cell(name, layers=2), GPU)
    take_step(run, batch(run.cell), 1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        take_step(run, batch(run.cell), 2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    seen("the host's waits in a step", name, "none")


def batch_of(cell: Cell):
    return lambda step: batch(cell, step)


def final(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "state/step-000024/state.safetensors")


@pytest.mark.parametrize("name", ["tiny-full", "tiny-relora"])
def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(seen, tmp_path, name):
    cell = small_training(name)
    train(cell, GPU, batch_of(cell), tmp_path / "whole")
    train(cell, GPU, batch_of(cell), tmp_path / "again")
    train(cell, GPU, batch_of(cell), tmp_path / "cut", until=12)
    train(cell, GPU, batch_of(cell), tmp_path / "cut")
    whole, again, cut = (final(tmp_path / folder) for folder in ("whole", "again", "cut"))
    assert torch.equal(whole["random/0/cuda"], cut["random/0/cuda"]), "dropout draws other masks after a resume"
    of_repeat, of_resume = (
        max((whole[key] - other[key]).abs().max().item() for key in whole if key.startswith("model/"))
        for other in (again, cut)
    )
    words = f"largest difference of a weight {of_resume:.1e}, and {of_repeat:.1e} between two whole runs"
    seen("24 steps, stopped after 12", f"{name}, bfloat16", words)
    assert of_resume <= max(2 * of_repeat, 1e-6)


WORKER = """
import sys
from pathlib import Path
import torch
from relora_study.config import Cell, read_section
from relora_study.train import parallel
from relora_study.train.loop import train
folder = Path(sys.argv[1])
cell = read_section(Cell, folder / "config.yaml")
shape = (cell.train.batch_size, cell.model.context_length + 1)
batch_of = lambda step: torch.randint(cell.model.vocab_size, shape, generator=torch.Generator().manual_seed(step))
with parallel.process_group("cuda") as device:
    train(cell, device, batch_of, folder)
    groups = torch.distributed.get_backend_config(), parallel.any_process(True), parallel.gather("gathered")
    print(*groups, torch.distributed.get_backend(torch.distributed.group.WORLD))
"""


def test_a_process_group_of_one_trains_by_nccl(seen, tmp_path):
    cell = small_training("tiny-relora")
    train(cell, GPU, batch_of(cell), tmp_path / "alone")
    write_yaml(tmp_path / "nccl/config.yaml", cell.model_dump())
    (tmp_path / "worker.py").write_text(WORKER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    places = os.pathsep.join([str(ROOT / "workflow"), os.environ.get("PYTHONPATH", "")])
    command = [*launch, tmp_path / "worker.py", tmp_path / "nccl"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": places}, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "cuda:nccl" in done.stdout and "True ['gathered']" in done.stdout
    alone, nccl = (final(tmp_path / folder) for folder in ("alone", "nccl"))
    error = max((alone[key] - nccl[key]).abs().max().item() for key in alone if key.startswith("model/"))
    seen("a process group of one", done.stdout.strip(), f"largest difference of a weight {error:.1e}")
    assert error < 1e-3


@pytest.mark.parametrize(
    ("micro_batch", "compiled"), [(16, False), (16, True), (64, True)], ids=["eager", "compiled", "compiled-64"]
)
@pytest.mark.parametrize("name", CELLS)
def test_the_plan_measures_the_card(seen, name, micro_batch, compiled):
    cell = paper_cell(name, train={"batch_size": 1024, "micro_batch_size": micro_batch}, compile=compiled)
    torch.cuda.reset_peak_memory_stats()
    hours = measured_hours(cell)
    rate = cell.train.steps * cell.train.batch_size * cell.model.context_length / hours / 3600
    words = f"{rate / 1e3:.0f} k tokens/s, {hours:.1f} h, peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    seen(f"plan --measure, micro-batch {micro_batch}", f"{name}, {'compiled' if compiled else 'eager'}", words)
    assert hours > 0
