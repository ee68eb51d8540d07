"""The conformance check of this repository's methods, and of those that follow public implementations."""

from pathlib import Path
from types import SimpleNamespace

import torch
from relora_study.config import cells, read_study
from relora_study.train.loop import take_step
from relora_study.train.resets import reset as reset_adapters
from relora_study.train.run import start

ROOT = Path(__file__).parents[2]
CONFIGS = [ROOT / "config.yaml", ROOT / "workflow/presets/implementations.yaml"]
SHORT = {"reset_period": 10, "warmup_steps": 5, "horizon_steps": 100, "full_rank_steps": 0}


def method(name: str, **switches: object) -> SimpleNamespace:
    """Return what the check needs, for a method of the preset implementations.yaml with some switches changed."""
    chosen = {"methods": ["full", name], "sizes": ["tiny"], "seeds": [42]}
    cell = cells(read_study(CONFIGS, {"study": chosen}))[f"tiny-{name}-s42"]
    cell = cell.model_copy(update={"method": cell.method.model_copy(update=SHORT | switches)})
    run = start(cell, torch.device("cpu"))
    ids = torch.randint(cell.model.vocab_size, (2, 33))
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        take_step(run, ids, done)

    return SimpleNamespace(
        model=run.model,
        optimizer=run.optimizer,
        step=step,
        reset=lambda: reset_adapters(run.model, run.optimizer, cell.method, seed=done),
        forward=lambda: run.model(ids).logits,
        period=cell.method.reset_period,
        offset=cell.method.reset_offset,
    )


def training() -> SimpleNamespace:
    """Return `relora`, as described, with one mask for both moments."""
    return method("relora", moment_mask="shared")


def relora() -> SimpleNamespace:
    """Return `relora`, which prunes the two moments independently, as the public code does."""
    return method("relora")


def relora_released() -> SimpleNamespace:
    """Return the rules of the authors' released code."""
    return method("relora_released")


def relora_zero2() -> SimpleNamespace:
    """Return the same under ZeRO-2, whose master copies undo a restart."""
    return method("relora_zero2")
