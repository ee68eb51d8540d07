"""The claims ledger: what the paper and its public summary say, the published evidence, ours, and a verdict.

The verdict follows from an interval: *confirmed* where all of it lies on the claim's side, *contradicted* where all of
it lies on the other side, and *not shown at this scale* where it holds 0 or where one seed gives no interval.
The study's own cells are the evidence; for gradient accumulation, those of its sweeps over the micro-batch.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..config import read_section
from ..config.settings import Sweeps
from .differences import gaps, over_full_rank, trend
from .experiments import open_sweep
from .intervals import t_interval
from .published import final_values, published_table
from .published_recipe import LABELS
from .results import Runs
from .source import measured, select

CONFIRMED, CONTRADICTED = "confirmed", "contradicted"
NOT_SHOWN, UNTESTABLE = "not shown at this scale", "untestable here"
# A gap of 0.05 nats raises perplexity by 5 %: the published gaps of 0.09 and 0.39 are above it. Half: "far fewer".
COMPARABLE_NATS, FAR_FEWER = 0.05, 0.5
MICRO_BATCH = "micro_batch_size"
COLUMNS = ["claim", "origin", "published_evidence", "method", "measure", "value", "value_low", "value_high", "verdict"]


class Judged(NamedTuple):
    """Our evidence for one method: a number with its 95 % interval, and what it says of the claim."""

    value: float
    low: float
    high: float
    verdict: str


class Claim(NamedTuple):
    """A claim: its words, where it stands, the published evidence, our measure, who judges it, and by which methods."""

    text: str
    origin: str
    published: str
    measure: str
    judge: Callable[[Runs, str], Judged]
    every_low_rank: bool = False  # not those alone that reset their adapters


def claims(runs: Runs) -> pd.DataFrame:
    """The ledger: a row for each claim and each method of the study that resets its adapters.

    A claim of low-rank updates in general has one for each method but full rank.
    """
    return pd.DataFrame(_rows(runs), columns=COLUMNS)


def _rows(runs: Runs) -> Iterator[tuple[object, ...]]:
    methods = {cell.method_name: cell.method for cell in runs.cells.values()}
    restarted = {name for name, method in methods.items() if method.rank and method.reset_period}
    low_rank = {name for name, method in methods.items() if not method.is_full_rank}
    for claim in _claims():
        for method in runs.methods:
            if method in (low_rank if claim.every_low_rank else restarted):
                yield claim.text, claim.origin, claim.published, method, claim.measure, *claim.judge(runs, method)


def _claims() -> list[Claim]:
    abstract, summary, pairs = "abstract", "public summary", "paired by size and seed"
    final = final_values()
    shares = (final.trainable.xs("relora", level="method") / final.trainable.xs("full", level="method"))[
        ["tiny", "small"]
    ]
    hours = (final.gpu_hours.xs("relora", level="method") / final.gpu_hours.xs("full", level="method"))[
        ["tiny", "small"]
    ]
    fewer = f"{_both(shares, '.0%')} of full rank's trainable parameters, {_both(hours, '.0%')} of its GPU-hours"
    return [
        Claim("ReLoRA has a higher loss than full rank", abstract, _over("train_loss", "+.3f"),
              f"held-out loss less full rank's (nats/token), {pairs}", _loss),
        Claim("ReLoRA has a higher perplexity than full rank", abstract, _over("paloma_perplexity", "+.1f"),
              f"token perplexity less full rank's, {pairs}", _perplexity),
        Claim("ReLoRA has a lower BLiMP accuracy than full rank", abstract, _over("blimp_accuracy", "+.4f"),
              f"accuracy on minimal pairs less full rank's, {pairs}", _accuracy),
        Claim("The gap to full rank widens with size", abstract, _over("train_loss", "+.3f"),
              "change of the gap with each doubling of the width (nats/token)", _widening),
        Claim("ReLoRA reinforces rank deficiencies of small models", abstract, _ranks(),
              f"PER of W2 less full rank's at the last step, {pairs}", _rank),
        Claim("Low-rank updates may not transfer to pretraining small models", abstract, _over("train_loss", "+.3f"),
              f"held-out loss less full rank's (nats/token), {pairs}", _loss, every_low_rank=True),
        Claim("Performance is comparable with far fewer resources", summary, f"{_over('train_loss', '+.3f')}; {fewer}",
              f"the larger of gap / {COMPARABLE_NATS} nats and share of trainable parameters / {FAR_FEWER}: at most 1",
              _comparable),
        Claim("Smaller models gain more efficiency than larger ones", summary, fewer,
              "share of parameters that need not train, smallest size less largest", _efficiency),
        Claim("Convergence is stable with reduced gradient accumulation", summary,
              "none: the configurations have one batch on fewer GPUs",
              f"loss with the fewest micro-batches less that with the most, {pairs}: at most {COMPARABLE_NATS} nats",
              _accumulation),
    ]  # fmt: skip


def _both(values: pd.Series, form: str) -> str:
    return " and ".join(format(value, form) for value in values)


def _over(column: str, form: str) -> str:
    """The published ReLoRA value less full rank's, for each size."""
    table = final_values()[column]
    over = table.xs("relora", level="method") - table.xs("full", level="method")
    return ", ".join(f"{format(over[size], form)} ({size})" for size in ("tiny", "small"))


def _ranks() -> str:
    """PER of W2 at the last published step: full rank and ReLoRA, for each size."""
    rows = select(published_table("dynamics.csv"), "weights", "per")
    last = rows[rows.component == "w2"].sort_values("step").groupby(["size", "method"]).value.last()
    full, relora = LABELS["full"], LABELS["relora"]
    return ", ".join(f"{last[size, full]:.3f} and {last[size, relora]:.3f} ({size})" for size in ("tiny", "small"))


def _judged(differences: pd.Series, claimed: int) -> Judged:
    """The mean of paired differences, of which the claim says that it lies above 0 (1) or below 0 (-1)."""
    values = differences.dropna().to_numpy(dtype=float)
    one_seed = "seed" in differences.index.names and differences.index.unique("seed").size < 2
    low, high = (np.nan, np.nan) if one_seed else t_interval(values)  # two sizes of one seed repeat nothing
    return Judged(float(values.mean()) if len(values) else np.nan, low, high, _verdict(low * claimed, high * claimed))


def _verdict(low: float, high: float) -> str:
    """What the interval of a measure says of a claim that the measure is above 0; the ends come in either order."""
    if min(low, high) > 0:
        return CONFIRMED
    return CONTRADICTED if max(low, high) < 0 else NOT_SHOWN


def _paired(runs: Runs, rows: pd.DataFrame, method: str) -> pd.Series:
    """What the last values of ``method`` are over full rank's, by size and seed."""
    over = over_full_rank(runs, rows)
    return over[over.index.get_level_values("method") == method]


def _loss(runs: Runs, method: str) -> Judged:
    rows = gaps(runs)
    return _judged(rows[rows.method == method].set_index(["method", "size", "seed"]).gap, 1)


def _perplexity(runs: Runs, method: str) -> Judged:
    return _judged(_paired(runs, measured(runs, "perplexity", "macro_average", "token_perplexity"), method), 1)


def _accuracy(runs: Runs, method: str) -> Judged:
    return _judged(_paired(runs, measured(runs, "minimal_pairs", "overall", "accuracy"), method), -1)


def _rank(runs: Runs, method: str) -> Judged:
    rows = select(runs.regular(), "weights", "per")
    rows = rows[rows.component == "w2"]
    means = rows.groupby(["cell", "method", "size", "seed", "step"], as_index=False).value.mean()
    return _judged(_paired(runs, means, method), -1)


def _widening(runs: Runs, method: str) -> Judged:
    fits = trend(runs).set_index("method")
    if method not in fits.index or np.isnan(fits.slope[method]):
        return Judged(np.nan, np.nan, np.nan, UNTESTABLE)
    row = fits.loc[method]
    return Judged(row.slope, row.slope_low, row.slope_high, _verdict(row.slope_low, row.slope_high))


def _comparable(runs: Runs, method: str) -> Judged:
    """Both must hold: a small gap at every size, and few parameters that train. The worse of the two decides."""
    rows = gaps(runs)
    by_size = [group.gap.to_numpy() for _, group in rows[rows.method == method].groupby("size")]
    if not by_size:
        return Judged(np.nan, np.nan, np.nan, NOT_SHOWN)
    share = max(_trainable(runs, method).values()) / FAR_FEWER
    ends = np.array([(values.mean(), *t_interval(values)) for values in by_size]) / COMPARABLE_NATS
    value, low, high = (max(share, float(column.max())) for column in ends.T)
    if np.isnan(ends).any():
        return Judged(value, np.nan, np.nan, CONTRADICTED if share > 1 else NOT_SHOWN)
    return Judged(value, low, high, _verdict(1 - high, 1 - low))


def _trainable(runs: Runs, method: str) -> dict[int, float]:
    """By d_model: the parameters of ``method`` that train, as a share of full rank's."""
    counts = {
        (cell.size.d_model, cell.method_name): float(str(runs.manifest(cell)["trainable_parameters"]))
        for cell in runs.cells.values()
    }
    full = str(runs.full_rank_method)
    widths = {width for width, name in counts if name == method}
    return {width: counts[width, method] / counts[width, full] for width in widths if (width, full) in counts}


def _efficiency(runs: Runs, method: str) -> Judged:
    shares = _trainable(runs, method)
    if len(shares) < 2:
        return Judged(np.nan, np.nan, np.nan, UNTESTABLE)
    gained = shares[max(shares)] - shares[min(shares)]  # counted, so there is no interval
    return Judged(gained, np.nan, np.nan, CONFIRMED if gained > 0 else CONTRADICTED)


def _accumulation(runs: Runs, method: str) -> Judged:
    """The largest micro-batch accumulates the fewest gradients, and the smallest the most."""
    losses = _micro_batch_losses(runs.folder.parent, method)
    if losses.columns.size < 2:
        return Judged(np.nan, np.nan, np.nan, UNTESTABLE)
    fewest, most = losses[losses.columns.max()], losses[losses.columns.min()]
    if fewest.isna().any():  # it diverged
        return Judged(np.nan, np.nan, np.nan, CONTRADICTED)
    found = _judged(fewest - most, 1)
    return found._replace(verdict=_verdict(COMPARABLE_NATS - found.high, COMPARABLE_NATS - found.low))


def _micro_batch_losses(results: Path, method: str) -> pd.DataFrame:
    """The held-out losses of the sweeps over the micro-batch: a row a size and seed, a column a micro-batch."""
    sweeps = read_section(Sweeps, results / "settings" / "sweeps.yaml").over(MICRO_BATCH)
    if not sweeps:
        return pd.DataFrame()
    rows = pd.concat([open_sweep(results, name).runs for name in sweeps]).drop_duplicates("cell")
    return rows[rows.method == method].pivot(index=["size", "seed"], columns=MICRO_BATCH, values="loss")
