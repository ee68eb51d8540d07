"""Training steps: this trainer against transformers' Llama with a plain cross-entropy and AdamW, in turns.

`make bench-train`, or `PYTHONPATH=workflow python benchmarks/train.py --threads 1 --rounds 5`.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from common import resident_kibibytes, seconds_in_turns, write_results
from relora_study.analysis.published_recipe import CONTEXT_LENGTH, RANK, SHAPE, VOCAB_SIZE, WIDTHS
from relora_study.config import Cell, cells, check
from relora_study.cost.estimates import training_flops
from relora_study.model.build import decoder_config
from relora_study.model.device import release_freed_memory
from relora_study.model.kernels.attention import SMALLEST_HEAD
from relora_study.model.kernels.matmul import matmul, matmul_transposed
from relora_study.storage.files import read_yaml
from relora_study.train.loop import take_step
from relora_study.train.run import start
from torch.nn import functional
from transformers import LlamaForCausalLM

CPU = torch.device("cpu")


def paper_or_default(paper: bool) -> dict[str, Cell]:
    """The default study's cells, or the same at the paper's shapes with one sequence of 2,048 tokens a step."""
    raw = read_yaml(Path("config.yaml"))
    if paper:
        raw["sizes"] = {name: {"d_model": d, "intermediate_size": 4 * d, **SHAPE} for name, d in WIDTHS.items()}
        raw["model"] |= {"vocab_size": VOCAB_SIZE, "context_length": CONTEXT_LENGTH}
        raw["data"]["held_out_tokens_per_domain"] = 4096
        raw["train"] |= {"batch_size": 1, "micro_batch_size": 1}
        raw["methods"]["relora"] |= {"rank": RANK, "alpha": 2 * RANK}
    raw["study"]["methods"] = ["full", "relora"]
    return {f"{cell.size_name}-{cell.method_name}": cell for cell in cells(check(raw, [])).values()}


def our_step(cell: Cell) -> Callable[[], object]:
    """This trainer's step on random ids."""
    run, ids = start(cell, CPU), _batch(cell)
    return lambda: take_step(run, ids, 100)


def plain_step(cell: Cell) -> Callable[[], object]:
    """The step that one writes with transformers and PyTorch alone."""
    model, ids = LlamaForCausalLM(decoder_config(cell.size, cell.model)), _batch(cell)
    model.set_attn_implementation("sdpa")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()

    return step


def _batch(cell: Cell) -> torch.Tensor:
    return torch.randint(cell.model.vocab_size, (cell.train.batch_size, cell.model.context_length + 1))


def products_step(cell: Cell) -> Callable[[], object]:
    """Only the matrix products and attention of a full-rank step, one call each: what no trainer can go below."""
    size, length, tokens = cell.size, cell.model.context_length, cell.train.batch_size * cell.model.context_length
    shapes = size.linear_shapes.values()
    operands = [(torch.randn(tokens, i), torch.randn(o, i), torch.randn(tokens, o)) for i, o in shapes]
    rows = min(tokens, 384)
    head = torch.randn(rows, size.d_model), torch.randn(cell.model.vocab_size, size.d_model)
    logits = torch.randn(rows, cell.model.vocab_size)
    heads = [size.num_attention_heads, size.num_key_value_heads, size.num_key_value_heads]
    head_dim = max(size.widths["head"], SMALLEST_HEAD)
    attended = [torch.randn(len(_batch(cell)), n, length, head_dim, requires_grad=True) for n in heads]

    def products(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
        matmul(x, weight.mT), matmul(out, weight), matmul_transposed(out, x)

    def step() -> None:
        for _ in range(size.num_hidden_layers):
            for one in operands:
                products(*one)
            mixed = functional.scaled_dot_product_attention(*attended, is_causal=True, enable_gqa=True)
            torch.autograd.grad(mixed, attended, mixed.detach())
        for _ in range(tokens // rows):
            products(*head, logits)

    return step


def matmul_flops() -> float:
    """Operations a second of a square matrix product that is large enough to be this machine's best."""
    one = torch.randn(1536, 1536)
    return 2 * 1536**3 / seconds_in_turns({"product": lambda: matmul(one, one)}, 5)["product"]


def peak_kibibytes(paper: bool, size: str, threads: int, plain: bool = False, release: bool = False) -> int:
    """Peak resident KiB of a fresh process that takes two steps of ``size`` at full rank."""
    command = [sys.executable, __file__, "--memory-of", size, "--threads", str(threads)]
    command += ["--paper"] * paper + ["--plain"] * plain + ["--release"] * release
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def compare(paper: bool, threads: int, rounds: int) -> list[tuple[str, str, str, float, float]]:
    """Rows for one set of shapes."""
    chosen, rows, peak = paper_or_default(paper), [], matmul_flops()
    for size in ("tiny", "small"):
        full, relora = chosen[f"{size}-full"], chosen[f"{size}-relora"]
        still = relora.model_copy(update={"method": relora.method.model_copy(update={"dropout": 0.0})})
        steps = {
            "plain": plain_step(full),
            "full": our_step(full),
            "relora": our_step(relora),
            "still": our_step(still),
            "products": products_step(full),
        }
        seconds = seconds_in_turns(steps, rounds)
        tokens = full.train.batch_size * full.model.context_length
        rate = {name: tokens / value for name, value in seconds.items()}
        case = f"{'paper' if paper else 'default'} {size}"
        flops = training_flops(full) / full.train.steps / seconds["full"]
        rows += [
            (f"{case}: full rank, against transformers", "speed", "tokens/s", rate["full"], rate["plain"]),
            (f"{case}: ReLoRA, against full rank", "speed", "tokens/s", rate["relora"], rate["full"]),
            (f"{case}: ReLoRA without dropout, against full rank", "speed", "tokens/s", rate["still"], rate["full"]),
            (
                f"{case}: full rank, against its products and attention alone",
                "speed",
                "tokens/s",
                rate["full"],
                rate["products"],
            ),
            (f"{case}: full rank, against the best matrix product", "operations", "GFLOP/s", flops / 1e9, peak / 1e9),
        ]
        memory = [peak_kibibytes(paper, size, threads, plain=plain) / 2**10 for plain in (False, True)]
        rows.append((f"{case}: full rank, against transformers", "peak memory", "MiB", *memory))
    return rows


def accumulated(rounds: int) -> list[tuple[str, str, str, float, float]]:
    """Rows for gradient accumulation: one batch of the default tiny size in several micro-batches, against one."""
    rows = []
    for method, words in (("full", "full rank"), ("relora", "ReLoRA")):
        cell, steps = paper_or_default(False)[f"tiny-{method}"], {}
        for parts in (1, 2, 4, 8):
            train = cell.train.model_copy(update={"micro_batch_size": cell.train.batch_size // parts})
            steps[str(parts)] = our_step(cell.model_copy(update={"train": train}))
        tokens = cell.train.batch_size * cell.model.context_length
        rate = {parts: tokens / seconds for parts, seconds in seconds_in_turns(steps, rounds).items()}
        for parts in ("2", "4", "8"):
            case = f"default tiny: {words}, a batch in {parts} micro-batches, against one"
            rows.append((case, "speed", "tokens/s", rate[parts], rate["1"]))
    return rows


def released(threads: int, rounds: int) -> list[tuple[str, str, str, float, float]]:
    """Rows for `runtime.release_memory` at the paper's small shape; the last ones, because the setting stays."""
    cell = paper_or_default(True)["small-full"]
    steps = {"plain": plain_step(cell), "kept": our_step(cell)}
    tokens = cell.train.batch_size * cell.model.context_length
    rate = {name: tokens / value for name, value in seconds_in_turns(steps, rounds).items()}
    release_freed_memory()
    ours = tokens / seconds_in_turns({"released": steps["kept"]}, rounds)["released"]
    memory = [peak_kibibytes(True, "small", threads, **{name: True}) / 2**10 for name in ("release", "plain")]
    case = "paper small: full rank, memory released, against"
    return [
        (f"{case} transformers", "speed", "tokens/s", ours, rate["plain"]),
        (f"{case} memory kept", "speed", "tokens/s", ours, rate["kept"]),
        (f"{case} transformers", "peak memory", "MiB", memory[0], memory[1]),
    ]


def main(
    threads: Annotated[int, typer.Option(help="CPU threads")] = 2,
    rounds: Annotated[int, typer.Option(help="timed rounds")] = 5,
    memory_of: Annotated[str, typer.Option(hidden=True)] = "",
    paper: Annotated[bool, typer.Option(hidden=True)] = False,
    plain: Annotated[bool, typer.Option(hidden=True)] = False,
    release: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Time, measure, write results/benchmarks/train.csv."""
    torch.set_num_threads(threads)
    if memory_of:
        if release:
            release_freed_memory()
        step = (plain_step if plain else our_step)(paper_or_default(paper)[f"{memory_of}-full"])
        for _ in range(2):
            step()
        print(resident_kibibytes("VmHWM"))
    else:
        write_results(
            "train",
            [
                *compare(False, threads, 4 * rounds),
                *accumulated(8 * rounds),
                *compare(True, threads, rounds),
                *released(threads, rounds),
            ],
        )


if __name__ == "__main__":
    typer.run(main)
