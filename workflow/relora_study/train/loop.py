"""Pretraining of one cell: the loop, and the order of what happens after each optimizer step."""

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import LlamaForCausalLM

from ..config import Cell
from ..errors import UserError
from ..model.build import build_model
from ..model.loss import head_cross_entropy
from ..model.relora import adapters, add_adapters
from .checkpoints import is_due, save_checkpoint
from .log import Log
from .resets import MasterCopies, is_reset, reset
from .schedule import learning_rate_ratio
from .state import newest_whole_state, restore_state, save_state, set_aside_another_configurations_run

LOG_COLUMNS = ["step", "tokens", "loss", "learning_rate", "gradient_norm", "adapter_gradient_norm", "reset"]
TIMING_COLUMNS = ["step", "seconds", "tokens_per_second"]
SECONDS_BETWEEN_PROGRESS_LINES = 20

MustStop = Callable[[], bool]
BatchOf = Callable[[int], Tensor]  # optimizer step (from 0) -> ids [batch_size, context_length + 1]


class Stopped(Exception):
    """The run was asked to stop, and saved its state first; the message says at which step."""


@dataclass
class Run:
    """What a run consists of while it lasts."""

    cell: Cell
    model: LlamaForCausalLM
    optimizer: torch.optim.Optimizer
    device: torch.device
    masters: MasterCopies | None = None


def start(cell: Cell, device: torch.device, done: int = 0) -> Run:
    """The cell's model and optimizer after ``done`` steps, as far as they are made and not learnt."""
    model = build_model(cell.size, cell.model, cell.seed).to(device)
    model.train()
    run = Run(cell, model, _optimizer(cell, model), device)
    if cell.method.rank and done >= cell.method.full_rank_steps:
        begin_adapters(run)
    return run


def begin_adapters(run: Run) -> None:
    """Give the model its adapters; what goes on training keeps its moments."""
    moments = {name: run.optimizer.state.get(parameter) for name, parameter in run.model.named_parameters()}
    add_adapters(run.model, run.cell.method)
    run.optimizer = _optimizer(run.cell, run.model)
    for name, parameter in run.model.named_parameters():
        if parameter.requires_grad and moments.get(name):
            run.optimizer.state[parameter] = moments[name]
    if run.cell.method.restart == "undone":
        run.masters = MasterCopies(adapters(run.model).values())


def _optimizer(cell: Cell, model: LlamaForCausalLM) -> torch.optim.AdamW:
    """AdamW on all that trains, decaying all of it, as the paper's code does."""
    recipe = cell.train
    return torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=recipe.learning_rate,
        betas=(recipe.betas[0], recipe.betas[1]),
        eps=recipe.eps,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def train(
    cell: Cell, device: torch.device, batch_of: BatchOf, cell_dir: Path, must_stop: MustStop = lambda: False
) -> Run:
    """Train ``cell`` to its last step, continuing from the newest state in ``cell_dir``, and write its files there.

    After each step: log, checkpoint, reset, state; so a checkpoint on a reset's step shows the model before it.
    Raises :class:`Stopped`, with the state saved, once ``must_stop`` says so.
    """
    set_aside_another_configurations_run(cell, cell_dir)
    done, state = newest_whole_state(cell_dir / "state")
    run = start(cell, device, done)
    if state:
        restore_state(run.model, run.optimizer, state)
    else:
        shutil.rmtree(cell_dir / "checkpoints", ignore_errors=True)
        save_checkpoint(run.model, cell, 0, cell_dir / "checkpoints")
    tokens = cell.train.batch_size * cell.model.context_length
    with (
        Log(cell_dir / "log.csv", LOG_COLUMNS, done) as log,
        Log(cell_dir / "timing.csv", TIMING_COLUMNS, done) as timing,
        _progress(cell, done) as progress,
    ):
        for step in range(done + 1, cell.train.steps + 1):
            began = time.perf_counter()
            row = take_step(run, batch_of(step - 1), step)
            log.append(row | {"tokens": step * tokens})
            _after_step(run, step, cell_dir)
            seconds = time.perf_counter() - began
            timing.append({"step": step, "seconds": seconds, "tokens_per_second": tokens / seconds})
            progress.update(tokens)
            if must_stop() and step < cell.train.steps:
                save_state(run.model, run.optimizer, cell, step, cell_dir / "state")
                raise Stopped(f"{cell.name}: stopped after step {step}, which is saved; run it again to go on")
    return run


def take_step(run: Run, batch: Tensor, step: int) -> dict[str, Any]:
    """One optimizer step, number ``step`` (from 1), on ``batch`` [batch_size, context_length + 1]; the log's row."""
    cell, device = run.cell, run.device
    rate = cell.train.learning_rate * learning_rate_ratio(cell.method, step - 1)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.optimizer.zero_grad()
    loss = 0.0
    for part in torch.split(batch.to(device), cell.train.micro_batch_size):
        part_loss = mean_loss(run, part) * (len(part) / len(batch))
        part_loss.backward()  # type: ignore[no-untyped-call]
        loss += part_loss.item()
    if not math.isfinite(loss):
        raise UserError(
            f"{cell.name}: the loss is {loss} at step {step}; the states before it are kept;"
            " lower train.learning_rate, or lengthen warmup_steps and rewarmup_steps, and run again"
        )
    norms = {
        "gradient_norm": _gradient_norm(list(run.model.parameters())),
        "adapter_gradient_norm": _adapter_gradient_norm(run.model),
    }
    if run.masters:
        run.masters.before_step()
    run.optimizer.step()
    if run.masters:
        run.masters.after_step()
    return {"step": step, "loss": loss, "learning_rate": rate, **norms, "reset": int(is_reset(cell.method, step))}


def mean_loss(run: Run, rows: Tensor) -> Tensor:
    """Mean cross-entropy, in nats a token, of ``rows`` [n, context_length + 1]: each id predicts the next."""
    bfloat16 = run.cell.runtime.precision == "bfloat16"
    with torch.autocast(run.device.type, dtype=torch.bfloat16, enabled=bfloat16):
        hidden = run.model.model(input_ids=rows[:, :-1], use_cache=False).last_hidden_state
        return head_cross_entropy(hidden, run.model.lm_head.weight, rows[:, 1:])


def _after_step(run: Run, step: int, cell_dir: Path) -> None:
    if is_due(run.cell.train, step):
        save_checkpoint(run.model, run.cell, step, cell_dir / "checkpoints")
    if is_reset(run.cell.method, step):
        reset(run.model, run.optimizer, run.cell.method)
    if step == run.cell.method.full_rank_steps > 0:
        begin_adapters(run)
    if step % run.cell.train.state_every == 0 or step == run.cell.train.steps:
        save_state(run.model, run.optimizer, run.cell, step, cell_dir / "state")


def _gradient_norm(parameters: list[nn.Parameter]) -> float:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))


def _adapter_gradient_norm(model: nn.Module) -> float | None:
    factors = [factor for layer in adapters(model).values() for factor in (layer.A, layer.B)]
    return _gradient_norm(factors) if factors else None


def _progress(cell: Cell, done: int) -> Any:
    """A line now and then, with rate and time left, that stays readable when cells train side by side."""
    tokens = cell.train.batch_size * cell.model.context_length
    return tqdm(
        total=cell.train.steps * tokens,
        initial=done * tokens,
        desc=cell.name,
        unit=" tokens",
        unit_scale=True,
        mininterval=SECONDS_BETWEEN_PROGRESS_LINES,
        miniters=1,
        delay=SECONDS_BETWEEN_PROGRESS_LINES,
        bar_format="{desc}: {percentage:.0f} % of {total_fmt} tokens, {rate_fmt}, {remaining} left\n",
    )
