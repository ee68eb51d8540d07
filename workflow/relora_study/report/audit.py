"""The audit: for each difference between the described method and the released code, what the runs at hand show."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from ..config import Cell
from .around_resets import around_resets
from .load import Results, published_readings, regular_readings

Finding = dict[str, Any]
LARGE_JUMP = 0.01  # nats a token of held-out loss at a merge that we call a jump


def audit(results: Results) -> pd.DataFrame:
    """Rows of finding, cell, measure, value and verdict, for every cell with adapters that restart."""
    rows = [row for cell in results.cells.values() if cell.method.reset_period for row in _findings(results, cell)]
    return pd.DataFrame(rows, columns=["finding", "cell", "measure", "value", "verdict"])


def _findings(results: Results, cell: Cell) -> Iterator[Finding]:
    log, dynamics = results.table("log.csv"), regular_readings(results)
    log, dynamics = log[log.cell == cell.name], dynamics[dynamics.cell == cell.name]
    yield _first_cycle(log, cell)
    yield from _merges(dynamics, cell)
    yield _spike(log, cell)
    yield _ceiling(published_readings(results, "updates", "per"), cell)
    yield _round_off(dynamics, cell)


def _first_cycle(log: pd.DataFrame, cell: Cell) -> Finding:
    assert cell.method.reset_period is not None
    first = log.step <= cell.method.reset_period + cell.method.reset_offset
    largest = log.adapter_gradient_norm[first].max()
    verdict = "dead: the adapters cannot learn before the first reset" if largest == 0 else "alive"
    return _row("first cycle", cell, "largest gradient norm of the adapters before the first reset", largest, verdict)


def _merges(dynamics: pd.DataFrame, cell: Cell) -> Iterator[Finding]:
    merges = dynamics[(dynamics.quantity == "merge") & (dynamics.step > 0)].dropna(subset="value")
    median = merges.groupby("metric").value.median().reindex(["update_lost", "loss_jump"])
    lost, jump = median["update_lost"], median["loss_jump"]
    verdict = "nothing is lost" if lost < 1e-6 else f"{lost:.0%} of each update is lost"
    yield _row("merge", cell, "median share of the update that a merge drops", lost, verdict)
    changes = "jumps" if jump > 0 else "falls"
    verdict = f"the loss {changes} by more than {LARGE_JUMP}" if abs(jump) > LARGE_JUMP else "no jump"
    yield _row("merge", cell, "median jump of the held-out loss at a merge (nats/token)", jump, verdict)


def _spike(log: pd.DataFrame, cell: Cell) -> Finding:
    """The released loss spikes in the first steps after a reset (published.published_audit)."""
    around = around_resets(log)
    jumps = around[around.step.between(2, 4)].groupby("reset_step").loss.mean()
    clear = jumps.mean() > 2 * jumps.sem()
    verdict = "spikes, as the published loss does" if clear else "no spike, unlike the published loss"
    return _row(
        "merge", cell, "jump of the training loss 2 to 4 steps after resets (nats/token)", jumps.mean(), verdict
    )


def _ceiling(per: pd.DataFrame, cell: Cell) -> Finding:
    own = per[(per.cell == cell.name) & (per.component == "w2")]
    ceiling = cell.method.rank / cell.size.d_model
    share = own.groupby("step").value.mean().max() / ceiling
    verdict = "bounded by r / min(m, n), whatever is learnt" if share <= 1.001 else "above the bound"
    return _row("PER of updates", cell, "largest PER of W2's B A, as a share of r / min(m, n)", share, verdict)


def _round_off(dynamics: pd.DataFrame, cell: Cell) -> Finding:
    rows = dynamics[(dynamics.metric == "condition_number") & (dynamics.component == "w2") & (dynamics.step > 0)]
    median = rows.groupby("quantity").value.median().reindex(["updates", "updates_exact"])
    ratio = median["updates"] / median["updates_exact"]
    verdict = "the published reading is round-off" if ratio > 100 else "the readings agree"
    return _row("CN of updates", cell, "float32 condition number of W2's B A over that of its r values", ratio, verdict)


def _row(finding: str, cell: Cell, measure: str, value: float, verdict: str) -> Finding:
    return {"finding": finding, "cell": cell.name, "measure": measure, "value": value, "verdict": verdict}
