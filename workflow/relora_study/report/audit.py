"""The audit: for each difference between the described method and the released code, what the runs at hand show."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..config import Cell
from .around_resets import around_resets, over_full_rank
from .load import Results, published_readings, rank_ceiling, regular_readings
from .pattern import adapter_pattern, nearest_size
from .published import flat_start

Finding = dict[str, Any]
COLUMNS = ["finding", "cell", "measure", "value", "published", "verdict"]
LARGE_JUMP = 0.01  # nats a token of held-out loss at a merge that we call a jump


@dataclass(frozen=True)
class Evidence:
    """What one cell left: its log, its readings, and how its adapters compare with the published ones."""

    cell: Cell
    log: pd.DataFrame
    regular: pd.DataFrame
    after_resets: pd.DataFrame
    pattern: pd.Series

    def row(self, finding: str, measure: str, value: float, verdict: str, published: float = np.nan) -> Finding:
        """A row of the table; ``published`` is the released curves' value of the same measure."""
        values = (finding, self.cell.name, measure, value, published, "not measured" if np.isnan(value) else verdict)
        return dict(zip(COLUMNS, values, strict=True))


def audit(results: Results) -> pd.DataFrame:
    """Rows of finding, cell, measure, value, published value and verdict, for every cell whose adapters are reset."""
    patterns = adapter_pattern(results).set_index("cell").reindex(list(results.cells))
    rows: list[Finding] = []
    for name, cell in results.cells.items():
        if cell.method.reset_period:
            rows += _findings(_evidence(results, cell, patterns.loc[name]))
    return pd.DataFrame(rows, columns=COLUMNS)


def _evidence(results: Results, cell: Cell, pattern: pd.Series) -> Evidence:
    log = over_full_rank(results.own_table("log.csv"), results.baseline)
    regular = regular_readings(results)
    after = pd.concat(
        published_readings(results, quantity, metric).assign(quantity=quantity, metric=metric)
        for quantity, metric in (("weights", "per"), ("updates", "per"), ("updates", "frobenius_norm"))
    )
    log, regular, after = (rows[rows.cell == cell.name] for rows in (log, regular, after))
    return Evidence(cell, log, regular, after, pattern)


def _findings(evidence: Evidence) -> Iterator[Finding]:
    yield from _first_cycle(evidence)
    yield from _merges(evidence)
    yield _spike(evidence)
    yield from _restart(evidence)
    yield from _readings(evidence)
    yield _adam(evidence)


def _first_cycle(evidence: Evidence) -> Iterator[Finding]:
    method, log = evidence.cell.method, evidence.log
    assert method.reset_period is not None
    first = log.step <= method.reset_period + method.reset_offset
    largest = log.adapter_gradient_norm[first].max()
    verdict = "dead: the adapters cannot learn before the first reset" if largest == 0 else "alive"
    yield evidence.row(
        "dead first cycle", "largest gradient norm of the adapters before the first reset", largest, verdict
    )
    weights = evidence.after_resets.query("quantity == 'weights' and component == 'w2'")
    per = weights.groupby("step").value.mean()
    moved = [
        abs(per.get((k + 1) * method.reset_period, np.nan) - per.get(k * method.reset_period, np.nan)) for k in (0, 1)
    ]
    share = moved[0] / moved[1]
    verdict = "flat, as the published curve is" if share < 0.01 else "moves, unlike the published curve"
    yield evidence.row(
        "dead first cycle",
        "change of PER of W2 in cycle 1, over that in cycle 2",
        share,
        verdict,
        flat_start(nearest_size(evidence.cell)),
    )


def _merges(evidence: Evidence) -> Iterator[Finding]:
    rows = evidence.regular
    merges = rows[(rows.quantity == "merge") & (rows.step > 0)].dropna(subset="value")
    median = merges.groupby("metric").value.median().reindex(["update_lost", "loss_jump"])
    lost, jump = median["update_lost"], median["loss_jump"]
    verdict = "nothing is lost" if lost < 1e-6 else f"{lost:.0%} of each update is lost"
    yield evidence.row("unscaled merge", "median share of the update that a merge drops", lost, verdict)
    changes = "jumps" if jump > 0 else "falls"
    verdict = f"the loss {changes} by more than {LARGE_JUMP}" if abs(jump) > LARGE_JUMP else "no jump"
    yield evidence.row("unscaled merge", "median jump of the held-out loss at a merge (nats/token)", jump, verdict)


def _spike(evidence: Evidence) -> Finding:
    """The released loss spikes in the first steps after a reset (published.published_audit)."""
    around = around_resets(evidence.log)
    jumps = around[around.step.between(2, 4)].groupby("reset_step").loss.mean()
    clear = jumps.mean() > 2 * jumps.sem()
    verdict = "spikes, as the published loss does" if clear else "no spike, unlike the published loss"
    return evidence.row(
        "unscaled merge",
        "jump of the training loss, over full rank's, 2 to 4 steps after resets (nats/token)",
        jumps.mean(),
        verdict,
    )


def _restart(evidence: Evidence) -> Iterator[Finding]:
    norm = _after_over_before(evidence, "frobenius_norm")
    verdict = "started again" if norm < 0.5 else "carried on"
    yield evidence.row("no restart", "norm of W2's B A shortly after resets, over that before them", norm, verdict)
    pattern = evidence.pattern
    near = abs(pattern["first"] / pattern.published_first - 1) < 0.5
    verdict = "as low as the published adapters" if near else "not as the published adapters"
    yield evidence.row(
        "no restart",
        "adapters' PER over its ceiling in the first cycle",
        pattern["first"],
        verdict,
        pattern.published_first,
    )
    verdict = "grows from cycle to cycle" if pattern.growth > 1.5 else "level"
    yield evidence.row(
        "no restart",
        "V's PER in the last common cycle, over that in the first",
        pattern.growth,
        verdict,
        pattern.published_growth,
    )
    verdict = "follows the published shape" if pattern.correlation > 0.5 else "another shape"
    yield evidence.row(
        "no restart", "correlation with the published PER over cycles", pattern.correlation, verdict, 1.0
    )
    yield evidence.row(
        "no restart",
        "root mean square distance from the published PER over its ceiling",
        pattern.distance,
        "near the published level" if pattern.distance < 0.1 else "another level",
        0.0,
    )


def _readings(evidence: Evidence) -> Iterator[Finding]:
    share = _after_over_before(evidence, "per")
    verdict = "the cycle's end reads the same" if abs(share - 1) < 0.1 else "the cycle's end reads otherwise"
    yield evidence.row(
        "readings after resets", "PER of W2's B A shortly after resets, over that before", share, verdict
    )
    per = evidence.after_resets.query("quantity == 'updates' and metric == 'per' and component == 'w2'")
    share = per.groupby("step").value.mean().max() / rank_ceiling(evidence.cell, "w2")
    verdict = "bounded by r / min(m, n), whatever is learnt" if share <= 1.001 else "above the bound"
    yield evidence.row("rank ceiling", "largest PER of W2's B A, as a share of r / min(m, n)", share, verdict)
    rows = evidence.regular
    rows = rows[(rows.metric == "condition_number") & (rows.component == "w2") & (rows.step > 0)]
    median = rows.groupby("quantity").value.median().reindex(["updates", "updates_exact"])
    ratio = median["updates"] / median["updates_exact"]
    verdict = "the reading is round-off" if ratio > 100 else "the readings agree"
    yield evidence.row(
        "round-off", "float32 condition number of W2's B A, over that of its r singular values", ratio, verdict
    )


def _after_over_before(evidence: Evidence, metric: str) -> float:
    """Median over resets of a reading of W2's B A shortly after a reset, over that at the checkpoint before it."""
    after = evidence.after_resets.query("quantity == 'updates' and metric == @metric and component == 'w2'")
    before = evidence.regular.query("quantity == 'updates' and metric == @metric and component == 'w2'")
    ratios = after.groupby("step").value.mean() / before.groupby("step").value.mean()
    return float(ratios[ratios.index > 0].replace([np.inf, -np.inf], np.nan).median())


def _adam(evidence: Evidence) -> Finding:
    """The reset keeps Adam's step count and a thousandth of each moment, drawn apart.

    So bias correction does not know that the moments are new; and A, which has no gradient until B has moved, steps by
    its first moment over epsilon where that survived and the second did not.
    """
    log = evidence.log.set_index("step")
    per_rate = (log.update_norm / log.learning_rate).where(log.learning_rate > 0)
    after = [_next(per_rate, at) / per_rate.loc[at - 10 : at - 1].mean() for at in log.index[log.reset == 1][1:]]
    ratio = float(np.nanmedian(after)) if after else np.nan
    verdict = "no larger than before"
    if ratio > 10:
        verdict = "far larger: where only the first moment survives, Adam divides by its epsilon"
    elif ratio > 1:
        verdict = "larger: Adam's bias correction takes the new moments for old ones"
    return evidence.row(
        "Adam's state", "first update after resets, over the ten before, per unit of rate", ratio, verdict
    )


def _next(values: pd.Series, at: int) -> float:
    """The first of ``values`` that is not missing after step ``at``; NaN where there is none."""
    later = values.loc[at + 1 :].dropna()
    return float(later.iloc[0]) if len(later) else np.nan
