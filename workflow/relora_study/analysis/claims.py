"""The claims ledger: what the paper's abstract says, the published evidence, ours, and a verdict.

The verdict follows from the t tests of an effect (:mod:`.effects`) against the report's margin, where it is a loss, and
against 0 elsewhere: *confirmed* or *contradicted* by its side, where p stays below 5 % after Holm's correction (1979)
over the ledger, else *undecided*. One seed decides nothing. What our readings cannot judge is *untestable here*, with
the reason.

The abstract has two versions: arXiv 2509.12960 v1 (September 2025) and v2 (October 2025), which ACL Anthology
2025.blackboxnlp-1.9 prints. Three more claims stand on a third party's summary page; the authors do not make them. The
study's own cells are the evidence; for gradient accumulation, those of its sweeps over the micro-batch.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..config import Cell, read_section
from ..config.benchmark_names import BLIMP, PALOMA
from ..config.measuring import LEVEL
from ..config.settings import Sweeps
from .differences import over_full_rank, trend
from .effects import EQUAL, HIGHER, LOWER, Effect, holm
from .experiments import open_sweep
from .losses import Losses
from .published import final_values, published_table
from .published_recipe import LABELS, RESET_PERIOD, STEPS, WIDTHS
from .results import Runs
from .source import measured, select

CONFIRMED, CONTRADICTED, UNDECIDED, UNTESTABLE = "confirmed", "contradicted", "undecided", "untestable here"
BOTH, FIRST, SECOND, SUMMARY = "abstract v1 and v2", "abstract v1", "abstract v2", "third party's summary page"
FAR_FEWER = 0.5  # of full rank's parameters: what trains at most under "far fewer resources"
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

    A claim of low-rank updates in general has one for each method of low rank. ``p_holm`` is the t test's p after
    Holm's correction over all rows. Claims that share a measure count each, which errs on the side of "undecided".
    """
    table = pd.DataFrame(_rows(runs), columns=COLUMNS)
    table.insert(table.columns.get_loc("verdict"), "p_holm", holm(table.p.to_numpy(float)))
    decided = table.verdict.isin([CONFIRMED, CONTRADICTED])
    table.loc[decided & (table.p_holm >= LEVEL), "verdict"] = UNDECIDED
    return table


def _rows(runs: Runs) -> Iterator[tuple[object, ...]]:
    methods = {cell.method_name: cell.method for cell in runs.cells.values()}
    restarted = {name for name, method in methods.items() if method.restarts}
    low_rank = {name for name, method in methods.items() if method.is_low_rank}
    for claim in (*_of_abstract(runs), *_of_summary(runs)):
        for method in runs.methods:
            if method in (low_rank if claim.every_low_rank else restarted):
                yield claim.text, claim.origin, claim.published, method, claim.measure, *claim.judge(runs, method)


def _of_abstract(runs: Runs) -> list[Claim]:
    pairs = "paired by size and seed"
    beyond = f"held-out loss less full rank's, {pairs}: more than {runs.margin:g} nats a token"
    conditions = _w2("updates", "condition_number", RESET_PERIOD, ",.0f")
    ranks = f"PER of W2, full rank and ReLoRA: {_w2('weights', 'per', STEPS, '.3f')}"
    return [
        Claim("ReLoRA has a higher loss than full rank", BOTH, _over("train_loss", "+.3f"),
              beyond, _loss),
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
              beyond, _loss, every_low_rank=True),
    ]  # fmt: skip


def _of_summary(runs: Runs) -> list[Claim]:
    final = final_values()
    ratios = (final.xs("relora", level="method") / final.xs("full", level="method")).loc[list(WIDTHS)]
    fewer = f"{_both(ratios.trainable, '.0%')} of full rank's trainable parameters"
    fewer += f", {_both(ratios.gpu_hours, '.0%')} of its GPU-hours"
    return [
        Claim("Performance is comparable with far fewer resources", SUMMARY, f"{_over('train_loss', '+.3f')}; {fewer}",
              f"held-out loss less full rank's, at most {runs.margin:g} nats, paired by size and seed, at sizes where"
              f" at most {FAR_FEWER:.0%} of full rank's parameters train: limits that this project chose", _comparable),
        Claim("Smaller models gain more efficiency than larger ones", SUMMARY, fewer,
              "share of parameters that need not train, smallest size less largest", _efficiency),
        Claim("Convergence is stable with reduced gradient accumulation", SUMMARY,
              "none: the configurations have one batch on fewer GPUs",
              "loss with the fewest micro-batches less that with the most, paired by size and seed: at most"
              f" {runs.margin:g} nats", _accumulation),
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


def _judged(effect: Effect, claimed: set[str], seeds: int, margin: float = 0.0) -> Judged:
    """What an effect of different ``seeds`` says of a claim that it is one of ``claimed`` (higher, lower, equal)."""
    if seeds < 2:  # two sizes of one seed repeat nothing
        side = HIGHER if effect.mean > margin else LOWER if effect.mean < -margin else EQUAL
        seen = f", one seed, {'as' if side in claimed else 'not as'} claimed" if np.isfinite(effect.mean) else ""
        return Judged(effect.mean, np.nan, np.nan, np.nan, UNDECIDED + seen)
    side, p = min(effect.sides(margin).items(), key=lambda found: found[1])
    verdict = UNDECIDED if not p < LEVEL else CONFIRMED if side in claimed else CONTRADICTED
    return Judged(effect.mean, *effect.interval, p, verdict)


def _over_seeds(differences: pd.Series, claimed: str) -> Judged:
    """:func:`_judged` for one difference a size and seed."""
    return _judged(Effect.over_seeds(differences), {claimed}, differences.index.unique("seed").size)


def _over_documents(losses: Losses, pairs: list[tuple[Cell, Cell]], claimed: set[str], margin: float) -> Judged:
    """:func:`_judged` for the held-out losses of the first of each pair less the second's, where neither diverged."""
    whole = [pair for pair in pairs if all(np.isfinite(losses.of(cell.name)) for cell in pair)]
    effect = losses.difference((ours.name, other.name) for ours, other in whole)
    return _judged(effect, claimed, len({ours.seed for ours, _ in whole}), margin)


def _untestable(why: str, judged: Judged | None = None) -> Judged:
    """No verdict, because of ``why``; the number of ``judged``, which no test enters, stands beside it."""
    value, low, high = judged[:3] if judged else (np.nan, np.nan, np.nan)
    return Judged(value, low, high, np.nan, f"{UNTESTABLE}: {why}")


def _paired(runs: Runs, rows: pd.DataFrame, method: str) -> pd.Series:
    """What the last values of ``method`` are over full rank's, by size and seed."""
    over = over_full_rank(runs, rows)
    return over[over.index.get_level_values("method") == method]


def _loss(runs: Runs, method: str) -> Judged:
    return _over_documents(runs.losses, _with_full_rank(runs, method), {HIGHER}, runs.margin)


def _with_full_rank(runs: Runs, method: str) -> list[tuple[Cell, Cell]]:
    """Each cell of ``method`` with full rank's of equal size and seed."""
    cells = [cell for cell in runs.cells.values() if cell.method_name == method]
    return [(cell, full) for cell in cells if (full := runs.reference_of(cell))]


def _perplexity(runs: Runs, method: str) -> Judged:
    found = _over_seeds(
        _paired(runs, measured(runs, "perplexity", "macro_average", "token_perplexity"), method), HIGHER
    )
    return found if runs.texts == PALOMA else _untestable("other texts", found)


def _accuracy(runs: Runs, method: str) -> Judged:
    found = _over_seeds(_paired(runs, measured(runs, "minimal_pairs", "overall", "accuracy"), method), LOWER)
    return found if runs.suite == BLIMP else _untestable("other pairs", found)


def _rank(runs: Runs, method: str) -> Judged:
    return _over_seeds(_ranks_over_full(runs, method), LOWER)


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
    found = _over_seeds(over[over.index.get_level_values("size").isin(names)], HIGHER)
    return found if largest.d_model > max(WIDTHS.values()) else _untestable("no size beyond the paper's", found)


def _ill_conditioned(runs: Runs, method: str) -> Judged:
    """Both readings are taken at equal steps, where both exist and neither divides by 0."""
    rows = runs.regular()
    early = rows.step <= rows.cell.map({name: EARLY * cell.train.steps for name, cell in runs.cells.items()})
    rows = rows[early & ~rows.cell.isin(list(runs.diverged)) & (rows.component == "w2") & (rows.value > 0)]
    over = _powers(rows, "updates_exact", method) - _powers(rows, "gradients", str(runs.full_rank_method))
    over = over.dropna().groupby(["size", "seed"]).mean()
    return (
        _over_seeds(over, HIGHER)
        if len(over)
        else _untestable(f"no such reading in the first {EARLY:.0%} of the steps")
    )


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
    verdict = UNDECIDED if not row.p < LEVEL else CONFIRMED if row.slope > 0 else CONTRADICTED
    return Judged(row.slope, row.slope_low, row.slope_high, row.p, verdict)


def _comparable(runs: Runs, method: str) -> Judged:
    """Where most parameters train, as in a narrow model, whose embeddings hold most of them, nothing can be saved."""
    few = [width for width, share in _trainable(runs, method).items() if share <= FAR_FEWER]
    if not few:
        return _untestable(f"at every size, more than {FAR_FEWER:.0%} of the parameters train")
    pairs = [pair for pair in _with_full_rank(runs, method) if pair[0].size.d_model in few]
    return _over_documents(runs.losses, pairs, {LOWER, EQUAL}, runs.margin)


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
    results = runs.folder.parent
    names = read_section(Sweeps, results / "settings" / "sweeps.yaml").over(MICRO_BATCH)
    swept = [open_sweep(results, name) for name in names]
    rows = pd.concat([each.runs for each in swept]).drop_duplicates("cell") if swept else pd.DataFrame()
    cells = (
        rows[rows.method == method].pivot(index=["size", "seed"], columns=MICRO_BATCH, values="cell") if swept else rows
    )
    if cells.columns.size < 2:
        return _untestable(f"no sweep over {MICRO_BATCH}")
    losses = Losses(swept[0].losses.tokens, {name: nats for each in swept for name, nats in each.losses.nats.items()})
    pairs = cells[[cells.columns.max(), cells.columns.min()]].dropna()
    fewest = pairs.iloc[:, 0].map(losses.of)
    if fewest.isna().any():  # it diverged
        return Judged(np.nan, np.nan, np.nan, np.nan, CONTRADICTED)
    effect = losses.difference(pairs.itertuples(index=False, name=None))
    return _judged(effect, {LOWER, EQUAL}, pairs.index.unique("seed").size, runs.margin)
