"""The claims ledger: what the paper's abstract says, the published evidence, ours, and a verdict.

The verdict follows from a two-sided t test of a mean against what the claim says it is above or below: *confirmed* or
*contradicted* by its side, where p stays below 5 % after Holm's correction (1979) over the ledger, else *undecided*. So
one seed, which has no interval, decides nothing. What our readings cannot judge is *untestable here*, with the reason.

The abstract has two versions: arXiv 2509.12960 v1 (September 2025) and v2 (October 2025), which ACL Anthology
2025.blackboxnlp-1.9 prints. Three more claims stand on a third party's summary page; the authors do not make them. The
study's own cells are the evidence; for gradient accumulation, those of its sweeps over the micro-batch.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp

from ..config import read_section
from ..config.evaluated import BLIMP, PALOMA
from ..config.settings import Sweeps
from ..evaluate.proportions import LEVEL
from .differences import gaps, holm, over_full_rank, trend
from .experiments import sweep_runs
from .intervals import t_interval
from .published import final_values, published_table
from .published_recipe import LABELS, RESET_PERIOD, STEPS, WIDTHS
from .results import Runs
from .source import measured, select

CONFIRMED, CONTRADICTED, UNDECIDED, UNTESTABLE = "confirmed", "contradicted", "undecided", "untestable here"
BOTH, FIRST, SECOND, SUMMARY = "abstract v1 and v2", "abstract v1", "abstract v2", "third party's summary page"
# A gap of 0.05 nats raises perplexity by 5 %: the published gaps of 0.09 and 0.39 are above it. Half: "far fewer".
COMPARABLE_NATS, FAR_FEWER = 0.05, 0.5
EARLY = 0.25  # of the steps: the published condition numbers fall most until then
MICRO_BATCH = "micro_batch_size"
COLUMNS = ["claim", "origin", "published_evidence", "method", "measure", "value", "value_low", "value_high"]
COLUMNS += ["p", "verdict"]


class Judged(NamedTuple):
    """Our evidence for one method: a number with its 95 % interval, its t test, and what they say of the claim."""

    value: float
    low: float
    high: float
    p: float
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

    A claim of low-rank updates in general has one for each method but full rank. ``p_holm`` is the t test's p after
    Holm's correction over all rows. Claims that share a measure count each, which errs on the side of "undecided".
    """
    table = pd.DataFrame(_rows(runs), columns=COLUMNS)
    table.insert(table.columns.get_loc("verdict"), "p_holm", holm(table.p))
    decided = table.verdict.isin([CONFIRMED, CONTRADICTED])
    table.loc[decided & (table.p_holm >= LEVEL), "verdict"] = UNDECIDED
    return table


def _rows(runs: Runs) -> Iterator[tuple[object, ...]]:
    methods = {cell.method_name: cell.method for cell in runs.cells.values()}
    restarted = {name for name, method in methods.items() if method.rank and method.reset_period}
    low_rank = {name for name, method in methods.items() if not method.is_full_rank}
    for claim in (*_of_abstract(runs), *_of_summary()):
        for method in runs.methods:
            if method in (low_rank if claim.every_low_rank else restarted):
                yield claim.text, claim.origin, claim.published, method, claim.measure, *claim.judge(runs, method)


def _of_abstract(runs: Runs) -> list[Claim]:
    pairs = "paired by size and seed"
    conditions = _w2("updates", "condition_number", RESET_PERIOD, ",.0f")
    ranks = f"PER of W2, full rank and ReLoRA: {_w2('weights', 'per', STEPS, '.3f')}"
    return [
        Claim("ReLoRA has a higher loss than full rank", BOTH, _over("train_loss", "+.3f"),
              f"held-out loss less full rank's (nats/token), {pairs}", _loss),
        Claim("ReLoRA has a higher perplexity on Paloma than full rank", BOTH, _over("paloma_perplexity", "+.1f"),
              f"token perplexity on {runs.texts} less full rank's, {pairs}", _perplexity),
        Claim("ReLoRA has a lower BLiMP accuracy than full rank", BOTH, _over("blimp_accuracy", "+.4f"),
              f"accuracy on {runs.suite} less full rank's, {pairs}", _accuracy),
        Claim("The gap to full rank widens with size", BOTH, _over("train_loss", "+.3f"),
              "change of the gap with each doubling of the width (nats/token)", _widening),
        Claim("ReLoRA reinforces rank deficiencies of small models", BOTH, ranks,
              f"PER of W2 less full rank's at the last step, {pairs}", _rank),
        Claim("ReLoRA induces ill-conditioned updates early in training", SECOND,
              f"condition number of W2's updates at step {RESET_PERIOD:,}, full rank and ReLoRA (bfloat16's round-off):"
              f" {conditions}",
              "power of ten between the condition numbers of W2's B A (over its r singular values) and of full rank's"
              f" gradients, a mean over the first {EARLY:.0%} of the steps, {pairs}", _ill_conditioned),
        Claim("ReLoRA can expand ranks in larger models", SECOND, ranks,
              "PER of W2 less full rank's at the last step and the largest size, paired by seed", _expanding),
        Claim("Low-rank updates may not transfer to pretraining small models", FIRST, _over("train_loss", "+.3f"),
              f"held-out loss less full rank's (nats/token), {pairs}", _loss, every_low_rank=True),
    ]  # fmt: skip


def _of_summary() -> list[Claim]:
    final = final_values()
    ratios = (final.xs("relora", level="method") / final.xs("full", level="method")).loc[list(WIDTHS)]
    fewer = f"{_both(ratios.trainable, '.0%')} of full rank's trainable parameters"
    fewer += f", {_both(ratios.gpu_hours, '.0%')} of its GPU-hours"
    return [
        Claim("Performance is comparable with far fewer resources", SUMMARY, f"{_over('train_loss', '+.3f')}; {fewer}",
              f"held-out loss less full rank's, at most {COMPARABLE_NATS} nats, paired by size and seed, at sizes where"
              f" at most {FAR_FEWER:.0%} of full rank's parameters train: limits that this project chose", _comparable),
        Claim("Smaller models gain more efficiency than larger ones", SUMMARY, fewer,
              "share of parameters that need not train, smallest size less largest", _efficiency),
        Claim("Convergence is stable with reduced gradient accumulation", SUMMARY,
              "none: the configurations have one batch on fewer GPUs",
              "loss with the fewest micro-batches less that with the most, paired by size and seed: at most"
              f" {COMPARABLE_NATS} nats", _accumulation),
    ]  # fmt: skip


def _both(values: pd.Series, form: str) -> str:
    return " and ".join(format(value, form) for value in values)


def _over(column: str, form: str) -> str:
    """The published ReLoRA value less full rank's, for each size."""
    table = final_values()[column]
    over = table.xs("relora", level="method") - table.xs("full", level="method")
    return ", ".join(f"{format(over[size], form)} ({size})" for size in WIDTHS)


def _w2(quantity: str, metric: str, step: int, form: str) -> str:
    """A published reading of W2 at a step: full rank and ReLoRA, for each size."""
    rows = select(published_table("dynamics.csv"), quantity, metric)
    at = rows[(rows.component == "w2") & (rows.step == step)].set_index(["size", "method"]).value
    return ", ".join(f"{_both(at[size][list(LABELS.values())], form)} ({size})" for size in WIDTHS)


def _judged(differences: pd.Series, claimed: int, limit: float = 0.0) -> Judged:
    """The mean of paired differences, of which the claim says that it lies above (1) or below (-1) ``limit``."""
    values = differences.dropna().to_numpy(dtype=float)
    mean = float(values.mean()) if len(values) else np.nan
    if len(values) < 2 or ("seed" in differences.index.names and differences.index.unique("seed").size < 2):
        return Judged(mean, np.nan, np.nan, np.nan, UNDECIDED)  # two sizes of one seed repeat nothing
    side, p = (mean - limit) * claimed, float(ttest_1samp(values, limit).pvalue)
    return Judged(mean, *t_interval(values), p, _verdict(side, p))


def _verdict(side: float, p: float) -> str:
    """What a test says of a claim: ``side`` is positive where the measure lies on the claim's side of its limit."""
    if not p < LEVEL:
        return UNDECIDED
    return CONFIRMED if side > 0 else CONTRADICTED


def _untestable(why: str, judged: Judged | None = None) -> Judged:
    """No verdict, because of ``why``; the number of ``judged``, which no test enters, stands beside it."""
    value, low, high = judged[:3] if judged else (np.nan, np.nan, np.nan)
    return Judged(value, low, high, np.nan, f"{UNTESTABLE}: {why}")


def _paired(runs: Runs, rows: pd.DataFrame, method: str) -> pd.Series:
    """What the last values of ``method`` are over full rank's, by size and seed."""
    over = over_full_rank(runs, rows)
    return over[over.index.get_level_values("method") == method]


def _loss(runs: Runs, method: str) -> Judged:
    return _judged(_paired(runs, measured(runs, "held_out", "fixed_batch", "loss"), method), 1)


def _perplexity(runs: Runs, method: str) -> Judged:
    found = _judged(_paired(runs, measured(runs, "perplexity", "macro_average", "token_perplexity"), method), 1)
    return found if runs.texts == PALOMA else _untestable("other texts", found)


def _accuracy(runs: Runs, method: str) -> Judged:
    found = _judged(_paired(runs, measured(runs, "minimal_pairs", "overall", "accuracy"), method), -1)
    return found if runs.suite == BLIMP else _untestable("other pairs", found)


def _rank(runs: Runs, method: str) -> Judged:
    return _judged(_ranks_over_full(runs, method), -1)


def _ranks_over_full(runs: Runs, method: str) -> pd.Series:
    """PER of W2 less full rank's at the last step, by size and seed."""
    rows = select(runs.regular(), "weights", "per")
    rows = rows[rows.component == "w2"]
    means = rows.groupby(["cell", "method", "size", "seed", "step"], as_index=False).value.mean()
    return _paired(runs, means, method)


def _expanding(runs: Runs, method: str) -> Judged:
    """The abstract sets larger models against small ones, as all of the paper's are: ours must be wider than those."""
    largest = max((cell.size for cell in runs.cells.values()), key=lambda size: size.d_model)
    names = {cell.size_name for cell in runs.cells.values() if cell.size == largest}
    over = _ranks_over_full(runs, method)
    found = _judged(over[over.index.get_level_values("size").isin(names)], 1)
    return found if largest.d_model > max(WIDTHS.values()) else _untestable("no size beyond the paper's", found)


def _ill_conditioned(runs: Runs, method: str) -> Judged:
    """Both readings are taken at equal steps, where both exist and neither divides by 0."""
    rows = runs.regular()
    early = rows.step <= rows.cell.map({name: EARLY * cell.train.steps for name, cell in runs.cells.items()})
    rows = rows[early & ~rows.cell.isin(list(runs.diverged)) & (rows.component == "w2") & (rows.value > 0)]
    over = _powers(rows, "updates_exact", method) - _powers(rows, "gradients", str(runs.full_rank_method))
    over = over.dropna().groupby(["size", "seed"]).mean()
    return _judged(over, 1) if len(over) else _untestable(f"no such reading in the first {EARLY:.0%} of the steps")


def _powers(rows: pd.DataFrame, quantity: str, method: str) -> pd.Series:
    """The logarithm to base 10 of a condition number, a mean over layers, by size, seed and step."""
    rows = select(rows[rows.method == method], quantity, "condition_number")
    powers = np.log10(rows.value).where(np.isfinite(rows.value))
    return rows.assign(power=powers).groupby(["size", "seed", "step"]).power.mean()


def _widening(runs: Runs, method: str) -> Judged:
    fits = trend(runs).set_index("method")
    if method not in fits.index or np.isnan(fits.slope[method]):
        return _untestable("fewer than three sizes")
    row = fits.loc[method]
    return Judged(row.slope, row.slope_low, row.slope_high, row.p, _verdict(row.slope, row.p))


def _comparable(runs: Runs, method: str) -> Judged:
    """Where most parameters train, as in a narrow model, whose embeddings hold most of them, nothing can be saved."""
    few = [width for width, share in _trainable(runs, method).items() if share <= FAR_FEWER]
    if not few:
        return _untestable(f"at every size, more than {FAR_FEWER:.0%} of the parameters train")
    rows = gaps(runs)
    rows = rows[(rows.method == method) & rows.d_model.isin(few)]
    return _judged(rows.set_index(["size", "seed"]).gap, -1, COMPARABLE_NATS)


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
    gained = shares[max(shares)] - shares[min(shares)] if len(shares) > 1 else np.nan
    return _untestable("arithmetic of shapes", Judged(gained, np.nan, np.nan, np.nan, ""))


def _accumulation(runs: Runs, method: str) -> Judged:
    """The largest micro-batch accumulates the fewest gradients, and the smallest the most."""
    losses = _micro_batch_losses(runs.folder.parent, method)
    if losses.columns.size < 2:
        return _untestable(f"no sweep over {MICRO_BATCH}")
    fewest, most = losses[losses.columns.max()], losses[losses.columns.min()]
    if fewest.isna().any():  # it diverged
        return Judged(np.nan, np.nan, np.nan, np.nan, CONTRADICTED)
    return _judged(fewest - most, -1, COMPARABLE_NATS)


def _micro_batch_losses(results: Path, method: str) -> pd.DataFrame:
    """The held-out losses of the sweeps over the micro-batch: a row a size and seed, a column a micro-batch."""
    sweeps = read_section(Sweeps, results / "settings" / "sweeps.yaml").over(MICRO_BATCH)
    if not sweeps:
        return pd.DataFrame()
    rows = pd.concat([sweep_runs(results, name) for name in sweeps]).drop_duplicates("cell")
    return rows[rows.method == method].pivot(index=["size", "seed"], columns=MICRO_BATCH, values="loss")
