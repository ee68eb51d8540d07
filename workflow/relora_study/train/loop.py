"""Pretrain one cell: the loop over optimizer steps, and the order of events after each step.

After a step come its log row, the checkpoint, the reset, a change between full rank and adapters, and the state. So the
checkpoint of a reset's step shows the model before the reset, and a state holds the model after it.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..config import Cell
from ..config.schedule import Due, due_after, is_reset, learning_rate_ratio, rank_after
from ..model.checkpoints import save_checkpoint
from ..model.decoder import layers, next_token_loss
from ..model.relora import adapters
from ..progress_lines import progress
from . import parallel
from .disk import check_disk
from .divergence import Diverged, record_divergence
from .log import LogRow, Recorder
from .rates import RATE_RATIO
from .resets import reset
from .run import Run, begin_adapters, end_adapters, start
from .state import (
    fingerprint,
    newest_whole_state,
    recorded_divergence,
    require_finite,
    restore_state,
    save_state,
    set_aside_another_configurations_run,
)

STEPS_BETWEEN_WAITS_FOR_THE_GPU = 20

MustStop = Callable[[], bool]  # asked after each step: whether the training must save its state and stop
BatchOf = Callable[[int], Tensor]  # optimizer step (from 0) -> ids [batch_size, context_length + 1]


class Stopped(Exception):
    """The run was asked to stop and has saved its state; the message gives the step."""


def train(
    cell: Cell,
    device: torch.device,
    batch_of: BatchOf,
    cell_dir: Path,
    must_stop: MustStop = lambda: False,
    data: str = "",
    until: int | None = None,
) -> Run:
    """Train ``cell`` to its last step or to ``until``, from the newest state in ``cell_dir``; its files go there.

    ``data`` is the hash of the token ids behind ``batch_of``: a run does not go on from a state of other data.

    Raises :class:`Stopped`, after saving a state, once ``must_stop`` returns true in any process of the cell.
    A loss, gradient or weight that is not finite ends the training at one step in every process. With
    ``train.divergence: record``, the divergence is written to ``cell_dir`` as the cell's result, and later calls return
    at once; with ``stop``, :class:`Diverged` is raised.
    """
    run, done = _resume(cell, device, cell_dir, data)
    if run.diverged_at is None:
        try:
            _train_on(run, done, batch_of, cell_dir, must_stop, until or cell.train.steps)
        except Diverged as diverged:
            if cell.train.divergence == "stop":
                raise
            run.diverged_at = diverged.step
            if parallel.rank() == 0:
                record_divergence(cell, cell_dir, diverged, fingerprint(cell, data))
    return run


def _train_on(run: Run, done: int, batch_of: BatchOf, cell_dir: Path, must_stop: MustStop, last: int) -> None:
    """Train the steps after ``done``, up to ``last``, and save the state there."""
    cell, device = run.cell, run.device
    tokens = cell.train.batch_size * cell.model.context_length
    every = STEPS_BETWEEN_WAITS_FOR_THE_GPU if device.type == "cuda" else 1
    writes = parallel.rank() == 0
    recorded = Recorder(cell_dir if writes else None, done, tokens, every, cell.runtime.tensorboard)
    with recorded as recorder, _progress(cell, done) as meter:
        for step in range(done + 1, last + 1):
            row = take_step(run, batch_of(step - 1), step)
            recorder.add(row | {"tokens": step * tokens})
            due = due_after(cell, step, last)
            if due.files:
                recorder.sync()  # raises before a bad loss gets into a file, and saves the row before the file
            _after_step(run, step, due, cell_dir)
            meter.update(tokens)
            # In every step, because a scheduler kills soon after it has asked; no process waits for its GPU here.
            if step < last and parallel.any_process(must_stop()):
                recorder.sync()
                save_state(run, step, cell_dir)
                raise Stopped(f"{cell.name}: stopped after step {step}, and its state is saved; run again to go on")


def _resume(cell: Cell, device: torch.device, cell_dir: Path, data: str) -> tuple[Run, int]:
    """Return the run at its newest state, with the number of finished steps: 0 for a new run.

    The first process reads the files and tells the others. A cell that diverged earlier has ``run.diverged_at`` set.
    """
    begin = None
    if parallel.rank() == 0:
        set_aside_another_configurations_run(cell, cell_dir, data)
        check_disk(cell, cell_dir)
        diverged_at = recorded_divergence(cell, cell_dir)
        begin = diverged_at, *((diverged_at, None) if diverged_at else newest_whole_state(cell, cell_dir))
    diverged_at, done, state = parallel.gather(begin)[0]
    run = start(cell, device, done, data)
    run.diverged_at = diverged_at
    if diverged_at:
        return run, done
    if state:
        restore_state(run.model, run.optimizer, state)
    elif parallel.rank() == 0:  # a new run: checkpoints without a state to go on from are of no use
        shutil.rmtree(cell_dir / "checkpoints", ignore_errors=True)
        save_checkpoint(run.model, cell, 0, cell_dir / "checkpoints")
    return run, done


def take_step(run: Run, batch: Tensor, step: int) -> LogRow:
    """Take optimizer step ``step`` (from 1) on ``batch`` [batch_size, context_length + 1], and return its log row."""
    cell = run.cell
    rate = cell.train.learning_rate * learning_rate_ratio(cell.method, step - 1)
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group[RATE_RATIO]
    run.optimizer.zero_grad()
    loss = torch.zeros((), device=run.device)
    for part in torch.split(_on_device(parallel.process_share(batch), run.device), cell.train.micro_batch_size):
        part_loss = mean_loss(run, part) * (len(part) / len(batch))
        part_loss.backward()  # type: ignore[no-untyped-call]
        loss += part_loss.detach()
    gradients = [parameter.grad for parameter in run.model.parameters() if parameter.grad is not None]
    parallel.sum_over_processes([loss, *gradients])
    norm = torch.nn.utils.get_total_norm(gradients)
    norms = {"gradient_norm": norm, "adapter_gradient_norm": _adapter_gradient_norm(run.model)}
    if limit := cell.train.gradient_clipping:
        torch.nn.utils.clip_grads_with_norm_(run.model.parameters(), limit, norm)
        norms["clipped_gradient_norm"] = torch.nn.utils.get_total_norm(gradients)
    norms["update_norm"] = _optimizer_step(run)
    return {"step": step, "loss": loss, "learning_rate": rate, **norms, "reset": int(is_reset(cell.method, step))}


def _optimizer_step(run: Run) -> Tensor:
    """Let the optimizer step, and return the norm of its change to the trained parameters of the decoder's layers.

    These are the adapters and norms, or the whole weights. Embeddings and head are left out, because they train alike
    in every method and would hide the effect of a reset.
    """
    if run.masters:
        run.masters.before_step()
    moving = [parameter.detach() for parameter in layers(run.model).parameters() if parameter.requires_grad]
    # The activations are freed by now, so these copies do not raise the peak memory.
    before = [parameter.clone() for parameter in moving]
    run.optimizer.step()
    moved = torch.nn.utils.get_total_norm([now - then for now, then in zip(moving, before, strict=True)])
    if run.masters:
        run.masters.after_step()
    return moved


def mean_loss(run: Run, rows: Tensor) -> Tensor:
    """Compute the mean cross-entropy (nats a token) of ``rows`` [n, context_length + 1]: each id predicts the next."""
    bfloat16 = run.cell.runtime.precision == "bfloat16"
    with torch.autocast(run.device.type, dtype=torch.bfloat16, enabled=bfloat16):
        return next_token_loss(run.model, rows, fused=run.cell.runtime.compile)


def _on_device(batch: Tensor, device: torch.device) -> Tensor:
    """Copy ``batch`` to the device; to a GPU from pinned memory, so that the copy overlaps the step before."""
    return batch.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else batch


def _after_step(run: Run, step: int, due: Due, cell_dir: Path) -> None:
    """Do, in this order, all that is due after ``step``: checkpoint, reset, change of adapters, state."""
    cell = run.cell
    if due.files:
        require_finite(run, step, cell_dir)
    if due.checkpoint and parallel.rank() == 0:
        save_checkpoint(run.model, cell, step, cell_dir / "checkpoints")
    if due.reset:
        reset(run.model, run.optimizer, cell.method, seed=cell.seed + step, rank=rank_after(cell.method, step))
    if due.adapters_begin:
        with parallel.drawing_alike(cell.seed + step):
            begin_adapters(run, step)
    if due.adapters_end:
        end_adapters(run)
    if due.state:
        save_state(run, step, cell_dir)


def _adapter_gradient_norm(model: nn.Module) -> Tensor | None:
    """Return the norm of the gradient of all A and B together, or None without adapters."""
    factors = [factor.grad for layer in adapters(model).values() for factor in (layer.A, layer.B)]
    return torch.nn.utils.get_total_norm([grad for grad in factors if grad is not None]) if factors else None


def _progress(cell: Cell, done: int) -> tqdm:
    """Return a progress meter in tokens; the lines of cells that train side by side begin with their names."""
    tokens = cell.train.batch_size * cell.model.context_length
    line = "{desc}: {percentage:.0f} % of {total_fmt} tokens, {rate_fmt}, {remaining} left"
    options = {"initial": done * tokens, "unit_scale": True} | ({"disable": True} if parallel.rank() else {})
    return progress(None, cell.train.steps * tokens, cell.name, " tokens", line, **options)
