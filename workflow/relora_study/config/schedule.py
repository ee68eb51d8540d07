"""Say when things happen in a training: the learning rate of each step, the resets, and the checkpoints."""

import math
from dataclasses import dataclass

from . import Cell, Method, Train


def learning_rate_ratio(method: Method, step: int) -> float:
    """Return the learning rate of the optimizer step after ``step`` finished steps, divided by the peak rate.

    ``linear`` warms up, then falls straight to 0 at the horizon. ``cosine`` warms up, then follows half a cosine to the
    minimum at the horizon. ``jagged_cosine`` (Lialin et al. 2023, section 3) does so, too. At each multiple of the
    reset period it drops to 0 and climbs, over the re-warm-up, to the cosine's value at the end of the climb.
    """
    if step < method.warmup_steps:
        return step / method.warmup_steps
    if method.schedule == "linear":
        return max(0.0, 1.0 - _decay_progress(method, step))
    if method.schedule == "cosine":
        return _cosine(method, step)
    assert method.reset_period is not None  # the schema requires a period with this schedule
    since_multiple = step % method.reset_period
    if step >= method.reset_period and since_multiple < method.rewarmup_steps:
        climbed = step - since_multiple + method.rewarmup_steps
        return since_multiple / method.rewarmup_steps * _cosine(method, climbed)
    return _cosine(method, step)


def is_reset(method: Method, step: int) -> bool:
    """Tell whether a reset follows optimizer step ``step``.

    Resets are at ``k * period + offset`` for k >= 1; those of adapters, as long as the model has them. The released
    trainer merges after the step that makes its counter 2,000 k + 1.
    """
    if method.reset_period is None or step <= method.full_rank_steps:
        return False
    if method.rank and not has_adapters(method, step):
        return False
    cycle, since = divmod(step - method.reset_offset, method.reset_period)
    return cycle >= 1 and since == 0


def has_adapters(method: Method, step: int) -> bool:
    """Tell whether the model has adapters in the step after ``step`` finished steps."""
    ended = method.full_rank_from is not None and step >= method.full_rank_from
    return method.rank > 0 and step >= method.full_rank_steps and not ended


def rank_after(method: Method, step: int) -> int:
    """Return the rank of the adapters in the step after ``step`` finished steps, which ``cycle_ranks`` may change."""
    if method.cycle_ranks is None or method.reset_period is None:
        return method.rank
    cycle = max(0, (step - method.reset_offset) // method.reset_period)
    return method.cycle_ranks[min(cycle, len(method.cycle_ranks) - 1)]


def is_due(cell: Cell, step: int) -> bool:
    """Tell whether the training saves a checkpoint after ``step``.

    Checkpoints are due at step 0, at each multiple of ``checkpoint_every``, ``checkpoint_offset`` steps after each
    multiple of the reset period, at the rungs of a search, and at the last step. The paper evaluates every 1,000 steps,
    and reads adapters 100 steps after each multiple of their period of 2,000.
    """
    train, period = cell.train, cell.method.reset_period
    after_reset = period is not None and step > period and step % period == train.checkpoint_offset
    return step % train.checkpoint_every == 0 or after_reset or step in (*cell.rungs, train.steps)


@dataclass(frozen=True)
class Due:
    """What a training does after an optimizer step, in the order of the fields."""

    checkpoint: bool
    reset: bool
    adapters_begin: bool
    adapters_end: bool
    state: bool

    @property
    def files(self) -> bool:
        """Whether a file is saved that a bad number must not reach."""
        return self.checkpoint or self.state


def due_after(cell: Cell, step: int, last: int) -> Due:
    """Return what is due after ``step``, of which ``last`` is the last that is trained now."""
    method = cell.method
    return Due(
        checkpoint=is_due(cell, step),
        reset=is_reset(method, step),
        adapters_begin=step == method.full_rank_steps > 0,
        adapters_end=step == method.full_rank_from,
        state=step % cell.train.state_every == 0 or step == last,
    )


def is_evaluated(train: Train, step: int) -> bool:
    """Tell whether the checkpoint of ``step`` is evaluated. One that was saved for a reading after a reset is not."""
    return step % train.checkpoint_every == 0 or step == train.steps


def due_steps(cell: Cell, diverged_at: int | None = None) -> list[int]:
    """List in order the steps whose checkpoints a finished training has; after a divergence, those before that step."""
    end = cell.train.steps + 1 if diverged_at is None else diverged_at
    return [step for step in range(end) if is_due(cell, step)]


def _decay_progress(method: Method, step: int) -> float:
    """Return how far ``step`` is from the end of the warm-up (0) to the horizon (1)."""
    return min(1.0, (step - method.warmup_steps) / (method.horizon_steps - method.warmup_steps))


def _cosine(method: Method, step: int) -> float:
    floor = method.minimum_learning_rate_ratio
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * _decay_progress(method, step)))
