"""When things happen in a run: the learning rate of every optimizer step, the resets, and the checkpoints."""

import math

from .config import Cell, Method, Train


def learning_rate_ratio(method: Method, step: int) -> float:
    """The learning rate, divided by its peak, of the optimizer step that follows ``step`` finished ones.

    ``linear`` warms up and falls straight to 0 at the horizon. ``jagged_cosine`` (Lialin et al. 2023, section 3)
    warms up and follows half a cosine to the minimum at the horizon, except that at each multiple of the reset
    period it drops to 0 and climbs, over the re-warm-up, to the cosine's value at the climb's end.
    """
    if step < method.warmup_steps:
        return step / method.warmup_steps
    if method.schedule == "linear":
        return max(0.0, 1.0 - _progress(method, step))
    assert method.reset_period is not None  # the schema asks for it with this schedule
    since_multiple = step % method.reset_period
    if step >= method.reset_period and since_multiple < method.rewarmup_steps:
        climbed = step - since_multiple + method.rewarmup_steps
        return since_multiple / method.rewarmup_steps * _cosine(method, climbed)
    return _cosine(method, step)


def is_reset(method: Method, step: int) -> bool:
    """Whether the reset follows optimizer step ``step``: at ``k * period + offset`` for k >= 1, once adapters train.

    The released trainer merges after the step that makes its counter 2,000 k + 1.
    """
    if method.reset_period is None or step <= method.full_rank_steps or not has_adapters(method, step):
        return False
    cycle, since = divmod(step - method.reset_offset, method.reset_period)
    return cycle >= 1 and since == 0


def has_adapters(method: Method, step: int) -> bool:
    """Whether the adapters train in the step that follows ``step`` finished ones."""
    ended = method.full_rank_from is not None and step >= method.full_rank_from
    return method.rank > 0 and step >= method.full_rank_steps and not ended


def is_due(cell: Cell, step: int) -> bool:
    """Whether ``step`` leaves a checkpoint: the first, each multiple, ``checkpoint_offset`` after a reset's, the last.

    The paper evaluates every 1,000 steps, and reads adapters 100 steps after each multiple of their period, 2,000.
    """
    train, period = cell.train, cell.method.reset_period
    after_reset = period is not None and step > period and step % period == train.checkpoint_offset
    return step % train.checkpoint_every == 0 or after_reset or step == train.steps


def is_evaluated(train: Train, step: int) -> bool:
    """Whether the checkpoint of ``step`` is evaluated: all but the readings after a restart."""
    return step % train.checkpoint_every == 0 or step == train.steps


def due_steps(cell: Cell, diverged_at: int | None = None) -> list[int]:
    """The steps at which a whole run leaves checkpoints, in order; of one that diverged, those before that step."""
    end = cell.train.steps + 1 if diverged_at is None else diverged_at
    return [step for step in range(end) if is_due(cell, step)]


def _progress(method: Method, step: int) -> float:
    """The share of the way from the warm-up's end to the horizon."""
    return min(1.0, (step - method.warmup_steps) / (method.horizon_steps - method.warmup_steps))


def _cosine(method: Method, step: int) -> float:
    floor = method.minimum_learning_rate_ratio
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * _progress(method, step)))
