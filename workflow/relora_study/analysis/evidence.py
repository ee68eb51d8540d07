"""The evidence of the audit: the tables of one model, and the readings that the measures take from them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import scipy

from ..config.measuring import LEVEL
from .adapter_pattern import adapter_pattern, published_shares
from .published import BEFORE, COUNTED_FROM, Published, loss_of, reset_steps
from .published_recipe import RANK, STEPS, WIDTHS, Trained
from .results import Runs
from .source import around_resets, rank_ceiling, while_adapted

STEADY = 0.8  # Spearman's correlation of share and cycle: below it, growth may be noise
WITHIN = 20  # steps after a reset in which the published loss may spike


@dataclass(frozen=True)
class Evidence:
    """The tables of one model. ``row`` names the model in the audit: the cell, or the published size.

    ``log`` has losses minus full rank's loss on each batch. ``labelled`` holds the readings under the paper's labels,
    and ``regular`` the readings at the regular checkpoints. ``pattern`` is the model's row of `adapter_pattern`.
    """

    row: str
    cell: Trained
    log: pd.DataFrame
    labelled: pd.DataFrame
    regular: pd.DataFrame
    pattern: pd.Series

    def curve(self, quantity: str, metric: str, component: str = "w2") -> pd.Series:
        """A reading under the paper's labels, by step, a mean over layers."""
        return _curve(self.labelled, quantity, metric, component)

    def regular_curve(self, quantity: str, metric: str, component: str = "w2") -> pd.Series:
        """A reading at the regular checkpoints by step, a mean over layers."""
        return _curve(self.regular, quantity, metric, component)


def _curve(rows: pd.DataFrame, quantity: str, metric: str, component: str) -> pd.Series:
    chosen = (rows.quantity == quantity) & (rows.metric == metric) & (rows.component == component)
    return rows[chosen].groupby("step").value.mean()


def evidence_of_runs(runs: Runs) -> Iterator[Evidence]:
    """The evidence of each cell whose adapters are reset."""
    tables = (runs.log_over_full_rank(), runs.labelled(), runs.regular())
    log, labelled, regular = (dict(list(rows.groupby("cell"))) for rows in tables)
    patterns = adapter_pattern(runs).set_index("cell").reindex(list(runs.cells))
    for name, cell in runs.cells.items():
        if cell.method.restarts:
            ours, at_checkpoints = (while_adapted(rows[name], cell.method) for rows in (labelled, regular))
            yield Evidence(name, cell, log[name], ours, at_checkpoints, patterns.loc[name])


@cache
def evidence_of_published() -> dict[str, Evidence]:
    """The evidence of the published ReLoRA model of each size."""
    published = Published()
    evidence = {}
    for cell in published.cells.values():
        if cell.method.restarts:
            log, labelled, regular = (
                rows[rows.cell == cell.name]
                for rows in (published.table("log.csv"), published.labelled(), published.regular())
            )
            evidence[cell.size_name] = Evidence(cell.size_name, cell, log, labelled, regular, pd.Series(dtype=float))
    return evidence


@dataclass(frozen=True)
class Reading:
    """The value of a measure, and the number ``beside`` it with which a verdict compares the value."""

    value: float
    beside: float = float("nan")


def first_gradient(evidence: Evidence) -> Reading:
    """The largest norm of the adapters' gradient up to the first reset."""
    method, log = evidence.cell.method, evidence.log
    first = log.step <= (method.reset_period or 0) + method.reset_offset
    return Reading(log.adapter_gradient_norm[first].max())


def flat_start(evidence: Evidence) -> Reading:
    """The change of PER of W2 in ReLoRA's first cycle, over the change in the second."""
    per, period = evidence.curve("weights", "per"), evidence.cell.method.reset_period or 0
    first, second = (abs(per.get((cycle + 1) * period, np.nan) - per.get(cycle * period, np.nan)) for cycle in (0, 1))
    return Reading(first / second)


def merge_reading(metric: str) -> Callable[[Evidence], Reading]:
    """The median over merges of ``metric`` (update_lost, loss_jump)."""

    def median(evidence: Evidence) -> Reading:
        rows = evidence.regular
        rows = rows[(rows.quantity == "merge") & (rows.metric == metric) & (rows.step > 0)]
        return Reading(rows.value.median())

    return median


def jump_after_resets(first: int, last: int) -> Callable[[Evidence], Reading]:
    """The mean jump of the loss ``first`` to ``last`` steps after resets, beside its noise.

    The noise is half of Student's 95 % interval over resets, which is missing where a training has one jump. No
    optimizer step comes between a reset and the next loss, so that loss shows the merge alone. Later losses also show
    Adam's first steps, which are large where a first moment survived the reset and its second moment did not.
    """

    def read(evidence: Evidence) -> Reading:
        around = around_resets(evidence.log)
        around = around[np.isfinite(around.loss.astype(float))]  # a cell may diverge after a reset
        jumps = around[around.step.between(first, last)].groupby("reset_step").loss.mean()
        return Reading(jumps.mean(), scipy.stats.t.ppf(1 - LEVEL / 2, len(jumps) - 1) * jumps.sem())

    return read


def after_over_before(metric: str) -> Callable[[Evidence], Reading]:
    """The median over resets of W2's B A read shortly after a reset, over the reading at the checkpoint before."""

    def median(evidence: Evidence) -> Reading:
        ratios = evidence.curve("updates", metric) / evidence.regular_curve("updates", metric)
        return Reading(float(ratios[ratios.index > 0].replace([np.inf, -np.inf], np.nan).median()))

    return median


def pattern_reading(column: str) -> Callable[[Evidence], Reading]:
    """A column of the adapters' pattern, beside the published column where there is one."""

    def read(evidence: Evidence) -> Reading:
        pattern = evidence.pattern
        return Reading(pattern[column], pattern.get(f"published_{column}", np.nan))

    return read


def largest_share(evidence: Evidence) -> Reading:
    """The largest PER of W2's B A over r / min(m, n)."""
    return Reading(evidence.curve("updates", "per").max() / rank_ceiling(evidence.cell, "w2"))


def round_off(evidence: Evidence) -> Reading:
    """The median condition number of W2's B A in float32, over its median over the r singular values of B A."""
    rows = evidence.regular
    rows = rows[(rows.metric == "condition_number") & (rows.component == "w2") & (rows.step > 0)]
    median = rows.groupby("quantity").value.median().reindex(["updates", "updates_exact"])
    return Reading(median["updates"] / median["updates_exact"])


def first_update(evidence: Evidence) -> Reading:
    """The first update after resets over the mean of the ten before, each per unit of learning rate.

    The reset keeps Adam's step count, so bias correction treats the new moments as old. The reset also keeps a
    thousandth of the first and of the second moments, drawn independently. A has no gradient until B has moved: an
    entry of A whose first moment alone survived moves by this moment over Adam's epsilon.
    """
    log = evidence.log.set_index("step")
    per_rate = (log.update_norm / log.learning_rate).where(log.learning_rate > 0)
    after = [_next(per_rate, at) / per_rate.loc[at - 10 : at - 1].mean() for at in log.index[log.reset == 1][1:]]
    return Reading(float(np.nanmedian(after)) if after else np.nan)


def _next(values: pd.Series, at: int) -> float:
    """The first of ``values`` after step ``at`` that is not missing; NaN where there is none."""
    later = values.loc[at + 1 :].dropna()
    return float(later.iloc[0]) if len(later) else np.nan


def jump(loss: pd.Series, at: int, before: int = BEFORE) -> float:
    """The largest ``loss`` (by step) in the 20 steps after ``at``, minus its mean over ``before`` steps up to ``at``.

    The loss right after a reset would show the merge alone. The first published loss is 5 steps later, when Adam has
    stepped, so a jump may come from the merge or from Adam.
    """
    return float(loss.loc[at + 1 : at + WITHIN].max() - loss.loc[at - before : at].mean())


def jump_noise(loss: pd.Series, resets: Sequence[int], end: int) -> float:
    """What a jump of ``loss`` must pass to be a spike: without spikes, one of all ``resets`` passes it in 5 % of cases.

    A largest of several losses lies above a mean by noise alone, so the null is the same statistic away from resets: in
    the last 20 of the 50 steps before each reset, and before ``end``. The bound is Student's prediction bound for the
    largest of as many new draws as there are resets (Hahn and Meeker 1991, with Bonferroni's inequality).
    """
    null = np.array([jump(loss, at - WITHIN, BEFORE - WITHIN) for at in (*resets, end)])
    quantile = scipy.stats.t.ppf(1 - LEVEL / len(resets), len(null) - 1)
    return float(null.mean() + quantile * null.std(ddof=1) * np.sqrt(1 + 1 / len(null)))


def _published_jumps(evidence: Evidence) -> tuple[np.ndarray, float]:
    """The jump of the published loss at each reset, and their noise."""
    loss, resets = loss_of(evidence.row), reset_steps()
    return np.array([jump(loss, at) for at in resets]), jump_noise(loss, resets, STEPS + COUNTED_FROM)


def first_jump(evidence: Evidence) -> Reading:
    """The jump at the first reset, beside the noise."""
    jumps, noise = _published_jumps(evidence)
    return Reading(float(jumps[0]), noise)


def later_jump(evidence: Evidence) -> Reading:
    """The smallest jump at a later reset, beside the noise."""
    jumps, noise = _published_jumps(evidence)
    return Reading(float(jumps[1:].min()), noise)


def later_spikes(evidence: Evidence) -> Reading:
    """The share of later resets whose jump passes the noise, beside the noise."""
    jumps, noise = _published_jumps(evidence)
    return Reading(float((jumps[1:] > noise).mean()), noise)


def growing_share(component: str, cycle: int) -> Callable[[Evidence], Reading]:
    """PER of the adapters over its ceiling in a cycle (0 or -1), beside the growth: last over first, 0 if unsteady."""

    def read(evidence: Evidence) -> Reading:
        rows = published_shares()
        share = rows[(rows["size"] == evidence.row) & (rows.component == component)].set_index("cycle").share
        steady = share.corr(pd.Series(share.index, share.index), method="spearman") > STEADY
        return Reading(share.iloc[cycle], share.iloc[-1] / share.iloc[0] if steady else 0.0)

    return read


def last_share(evidence: Evidence) -> Reading:
    """The last published PER of W2's B A over r / min(m, n)."""
    return Reading(evidence.curve("updates", "per").iloc[-1] / rank_ceiling(evidence.cell, "w2"))


def random_share(evidence: Evidence) -> Reading:
    """PER over r / min(m, n) of a random product in bfloat16, beside the published share."""
    return Reading(_random(evidence, "bfloat16")[1], last_share(evidence).value)


def condition_number(evidence: Evidence) -> Reading:
    """The last published condition number of W2's B A, beside the geometric mean of both formats' round-off."""
    rounded = [_random(evidence, name)[0] for name in FORMATS]
    return Reading(_last_condition_number(evidence), float(np.exp(np.mean(np.log(rounded)))))


def random_condition_number(precision: str) -> Callable[[Evidence], Reading]:
    """The condition number of a random product in ``precision``, beside the factor between it and the published one."""

    def read(evidence: Evidence) -> Reading:
        value, published = _random(evidence, precision)[0], _last_condition_number(evidence)
        return Reading(value, max(published / value, value / published))

    return read


def _last_condition_number(evidence: Evidence) -> float:
    return float(evidence.curve("updates", "condition_number").iloc[-1])


def _random(evidence: Evidence, precision: str) -> tuple[float, float]:
    width = WIDTHS[evidence.row]
    return random_product(width, 4 * width, RANK, precision)


FORMATS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "float32": lambda matrix: matrix.astype(np.float32),
    "bfloat16": lambda matrix: to_bfloat16(matrix),
}


def to_bfloat16(matrix: np.ndarray) -> np.ndarray:
    """``matrix`` rounded to bfloat16, the upper half of float32's bits (to nearest, ties to even); float32 again."""
    bits = matrix.astype(np.float32).view(np.uint32)
    odd = (bits >> 16) & 1
    return ((bits + 0x7FFF + odd) & 0xFFFF0000).astype(np.uint32).view(np.float32)


@cache
def random_product(width: int, columns: int, rank: int, precision: str) -> tuple[float, float]:
    """Condition number of a Gaussian product [width, columns] of ``rank`` in ``precision``, and PER over its ceiling.

    Without rounding, the condition number would be infinite and the share of the ceiling at most 1.
    """
    random = np.random.default_rng(0)
    exact = random.standard_normal((width, rank)) @ random.standard_normal((rank, columns))
    values = np.linalg.svd(FORMATS[precision](exact).astype(np.float64), compute_uv=False)
    shares = values / values.sum()
    effective = np.exp(-(shares * np.log(shares)).sum())
    return float(values[0] / values[-1]), float(effective / rank)
