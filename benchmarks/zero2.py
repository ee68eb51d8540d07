"""Does DeepSpeed's ZeRO-2 undo ReLoRA's restart? A real engine against our trainer's step, on one toy.

`make bench-zero2`, in an environment of its own (requirements-zero2.txt). DeepSpeed's accelerator is the CPU, with
gloo between processes.

**The toy.** Three layers of width 96, rank 16, a reset every 20 steps, a rate of 1e-3, 84 steps. It has no dropout, so
two processes compute what one does. Batches are draws from a fixed Markov chain.

**The reset of an engine** does what the authors' code does. Merge and restart rewrite the parameters of the module. The
clearing reaches the moments, which the engine keeps in one flat float32 partition a process:
`safe_get_full_optimizer_state` reads a parameter's part of it, and `safe_set_full_optimizer_state` writes it back.
Between the two runs our own `reset`, so all cases draw alike, and so do two processes; the authors' processes draw each
for itself. Beside the moments, the partition has a float32 master of each parameter that trains. The authors' reset
leaves the masters alone, and so does this one. One more case copies the new A and B over their masters, too. It differs
in nothing else, so it shows whether the masters undo the restart.

`results/benchmarks/zero2.csv` has a row for each case and cycle:

- `reset_after`: the step before the cycle, which a reset follows; the first cycle has none.
- `equal_to_old`, `equal_to_redrawn`, `nearer_to_old`: shares of the entries of all A, a step after the reset.
- `keeps_merge`: whether every W is then, bit for bit, what the merge made of it.
- `from_relora_zero2`, `from_relora_released`: largest difference of the loss (nats) in this cycle from our method's.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, NamedTuple

import pandas as pd
import torch
import typer
from common import RESULTS
from relora_study.config import Cell, cells, check
from relora_study.config.schedule import is_reset, learning_rate_ratio
from relora_study.model.relora import adapters
from relora_study.storage.files import read_yaml
from relora_study.train.loop import mean_loss, take_step
from relora_study.train.parallel import process_share, rank, sum_over_processes, world_size
from relora_study.train.resets import reset
from relora_study.train.run import Run, start
from torch import Tensor, nn

CPU = torch.device("cpu")
STEPS, PERIOD, VOCABULARY, CONTEXT = 84, 20, 512, 64
MOMENTS = ("exp_avg", "exp_avg_sq")


class Case(NamedTuple):
    """One training: our trainer's step for ``method``, or an engine's in ``precision`` on the method's model."""

    kind: str  # ours | torch (no DeepSpeed, no code of our trainer's step) | engine | engine_with_masters
    method: str = "relora_released"
    precision: str = "float32"
    processes: int = 1
    frozen: str = "float32"


CASES = {
    "ZeRO-2, float32, 1 process": Case("engine"),
    "ZeRO-2, float32, 2 processes": Case("engine", processes=2),
    "ZeRO-2, bf16, 1 process": Case("engine", precision="bf16"),
    "ZeRO-2, bf16, 2 processes": Case("engine", precision="bf16", processes=2),
    "ZeRO-2, float32, masters rewritten, too": Case("engine_with_masters"),
    "one device, no DeepSpeed": Case("torch"),
    "relora_zero2": Case("ours", "relora_zero2"),
    "relora_zero2, W in bfloat16": Case("ours", "relora_zero2", frozen="bfloat16"),
    "relora_released": Case("ours"),
}


def toy(method: str, frozen: str = "float32") -> Cell:
    """The cell of the toy: the switches of ``method`` in config.yaml, at the toy's shape and schedule."""
    raw = read_yaml(Path("config.yaml"))
    shape = {"d_model": 96, "intermediate_size": 384, "num_hidden_layers": 3}
    raw["sizes"] = {"toy": {**shape, "num_attention_heads": 12, "num_key_value_heads": 4}}
    raw["model"] |= {"vocab_size": VOCABULARY, "context_length": CONTEXT}
    raw["train"] |= {"steps": STEPS, "batch_size": 4, "micro_batch_size": 4, "learning_rate": 1e-3}
    raw["train"] |= {"betas": [0.9, 0.999], "checkpoint_every": PERIOD}
    switches = {"rank": 16, "alpha": 32, "dropout": 0.0, "reset_period": PERIOD, "frozen_dtype": frozen}
    schedule = {"warmup_steps": PERIOD, "rewarmup_steps": 1, "horizon_steps": 10 * STEPS}
    for name in ("relora_released", "relora_zero2"):
        raw["methods"][name] |= switches | schedule
    raw["study"] |= {"sizes": ["toy"], "methods": [method], "seeds": [42]}
    return cells(check(raw, []))[f"toy-{method}-s42"]


def batch_of(step: int) -> Tensor:
    """Ids [4, context + 1] of ``step``: nine in ten follow from the id before, by a fixed permutation."""
    follower = torch.randperm(VOCABULARY, generator=torch.Generator().manual_seed(0))
    drawn = torch.Generator().manual_seed(1000 + step)
    ids = torch.randint(VOCABULARY, (4, CONTEXT + 1), generator=drawn)
    follows = torch.rand(ids.shape, generator=drawn) < 0.9
    for place in range(1, CONTEXT + 1):
        ids[:, place] = torch.where(follows[:, place], follower[ids[:, place - 1]], ids[:, place])
    return ids


class Trainer(NamedTuple):
    """What the toy's loop needs of a case: one optimizer step with its loss, and a reset after a step."""

    model: nn.Module
    step: Callable[[int], float]
    reset: Callable[[int], None]


def ours(run: Run) -> Trainer:
    """This project's trainer."""
    seed, method = run.cell.seed, run.cell.method
    return Trainer(
        run.model,
        lambda step: float(take_step(run, batch_of(step), step)["loss"]),
        lambda step: reset(run.model, run.optimizer, method, seed + step),
    )


def plain(run: Run) -> Trainer:
    """PyTorch's AdamW on one device, without DeepSpeed and without our trainer's step."""
    cell = run.cell

    def step(number: int) -> float:
        _set_rate(run.optimizer, cell, number)
        run.optimizer.zero_grad()
        loss = mean_loss(run, batch_of(number))
        loss.backward()
        run.optimizer.step()
        return loss.item()

    return Trainer(run.model, step, lambda number: reset(run.model, run.optimizer, cell.method, cell.seed + number))


class _Loss(nn.Module):
    """The model with its loss, for an engine, which calls one module."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.model, self.run = run.model, run

    def forward(self, rows: Tensor) -> Tensor:
        return mean_loss(self.run, rows)


def zero2(run: Run, precision: str, with_masters: bool) -> Trainer:
    """A DeepSpeed engine at ZeRO stage 2, with PyTorch's AdamW as its client optimizer, as in the authors' code."""
    engine, cell = _engine(run, precision), run.cell

    def step(number: int) -> float:
        _set_rate(engine.optimizer, cell, number)
        loss = engine(process_share(batch_of(number)))
        engine.backward(loss)
        engine.step()
        mean = loss.detach().float() / world_size()
        sum_over_processes([mean])
        return mean.item()

    return Trainer(run.model, step, lambda number: _reset_engine(run, number, with_masters))


def _engine(run: Run, precision: str) -> Any:
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # sums by gloo: nothing is compiled
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    stage = {"stage": 2, "reduce_bucket_size": 500_000, "allgather_bucket_size": 500_000}
    settings = {
        "train_batch_size": run.cell.train.batch_size,
        "train_micro_batch_size_per_gpu": run.cell.train.batch_size // world_size(),
        "zero_optimization": stage,
        "gradient_clipping": 0.0,  # as our trainer; DeepSpeed 0.19's own default is 1
        "bf16": {"enabled": precision == "bf16"},
    }
    return deepspeed.initialize(model=_Loss(run), optimizer=run.optimizer, config=settings)[0]


def _reset_engine(run: Run, step: int, with_masters: bool) -> None:
    """Reset the module and the engine's moments after ``step``, and with ``with_masters`` the masters of A and B."""
    from deepspeed.utils import (
        safe_get_full_optimizer_state,
        safe_set_full_fp32_param,
        safe_set_full_optimizer_state,
    )

    cell = run.cell
    factors = [factor for layer in adapters(run.model).values() for factor in (layer.A, layer.B)]
    state = {factor: {key: safe_get_full_optimizer_state(factor, key) for key in MOMENTS} for factor in factors}
    reset(run.model, SimpleNamespace(state=state), cell.method, cell.seed + step)
    for factor in factors:
        for key in MOMENTS:
            safe_set_full_optimizer_state(factor, state[factor][key], key)
        if with_masters:
            safe_set_full_fp32_param(factor, factor.detach().float())


def _set_rate(optimizer: Any, cell: Cell, step: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = cell.train.learning_rate * learning_rate_ratio(cell.method, step - 1)


def made(case: Case) -> tuple[Trainer, Cell]:
    """The trainer of ``case`` before its first step."""
    cell = toy(case.method, case.frozen)
    run = start(cell, CPU)
    if case.kind == "ours":
        return ours(run), cell
    if case.kind == "torch":
        return plain(run), cell
    return zero2(run, case.precision, case.kind == "engine_with_masters"), cell


class Weights(NamedTuple):
    """Copies of all A, flat, and of each W."""

    a: Tensor
    w: list[Tensor]


def weights(model: nn.Module) -> Weights:
    """The weights of the adapted layers as they are now."""
    layers = adapters(model).values()
    flat = torch.cat([layer.A.detach().float().flatten() for layer in layers])
    return Weights(flat, [layer.weight.detach().clone() for layer in layers])


def returned(old: Tensor, redrawn: Tensor, now: Tensor) -> dict[str, float]:
    """Shares of the entries of ``now`` that equal ``old``, that equal ``redrawn``, and that are nearer to ``old``."""
    return {
        "equal_to_old": (now == old).double().mean().item(),
        "equal_to_redrawn": (now == redrawn).double().mean().item(),
        "nearer_to_old": ((now - old).abs() < (now - redrawn).abs()).double().mean().item(),
    }


def train(trainer: Trainer, cell: Cell) -> dict[str, Any]:
    """The loss of each step, and what is left of each reset one step later, by the step before the reset."""
    losses, resets, pending = [], {}, None
    for step in range(1, STEPS + 1):
        losses.append(trainer.step(step))
        if pending:
            old, merged = pending
            now = weights(trainer.model)
            kept = all(map(torch.equal, merged.w, now.w))
            resets[step - 1] = {**returned(old.a, merged.a, now.a), "keeps_merge": "yes" if kept else "no"}
            pending = None
        if is_reset(cell.method, step):
            old = weights(trainer.model)
            trainer.reset(step)
            pending = old, weights(trainer.model)
    return {"losses": losses, "resets": resets}


def found_by(name: str) -> dict[str, Any]:
    """Train the case ``name`` in processes of its own, because an engine leaves its process group behind."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "found.json"
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={CASES[name].processes}"]
        command = [sys.executable, *launcher, __file__, "--case", name, "--output", str(output)]
        environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{name}: training failed\n{done.stderr[-4000:]}")
        return json.loads(output.read_text())


def table(found: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """A row for each case and cycle."""
    ends = [*range(PERIOD + 1, STEPS, PERIOD), STEPS]
    rows = [{"case": name, **row} for name, one in found.items() for row in _cycles(one, found, [0, *ends])]
    return pd.DataFrame(rows).astype({"reset_after": "Int64"})


def _cycles(one: dict[str, Any], found: dict[str, dict[str, Any]], ends: list[int]) -> Iterator[dict[str, Any]]:
    for begin, end in itertools.pairwise(ends):
        row = {"steps": f"{begin + 1}-{end}", "reset_after": begin or None, **one["resets"].get(str(begin), {})}
        for method in ("relora_zero2", "relora_released"):
            pairs = zip(one["losses"][begin:end], found[method]["losses"][begin:end], strict=True)
            row[f"from_{method}"] = max(abs(loss - other) for loss, other in pairs)
        yield row


def main(
    output: Annotated[Path, typer.Option(help="the table")] = RESULTS / "zero2.csv",
    case: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Train every case, print the table, write results/benchmarks/zero2.csv."""
    if case:
        torch.set_num_threads(1)
        found = train(*made(CASES[case]))
        if rank() == 0:
            output.write_text(json.dumps(found))
        return
    result = table({name: found_by(name) for name in CASES})
    output.parent.mkdir(parents=True, exist_ok=True)
    result.to_csv(output, index=False, float_format="%.4g")
    print(result.to_markdown(index=False, floatfmt=".4g", missingval="–"))


if __name__ == "__main__":
    typer.run(main)
