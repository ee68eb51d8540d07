"""The sentences of the paper that depend on the data. The numbers choose the words of each."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from ..analysis.audit import ALIKE, outcomes
from ..analysis.differences import LOSS, differences, gap_effects
from ..analysis.effects import EQUAL, HIGHER, LOWER, ONE_SEED, UNDECIDED
from ..analysis.published_recipe import CONTEXT_LENGTH, RESET_PERIOD, STEPS
from ..analysis.results import Runs
from ..analysis.source import Source, select
from ..analysis.training_time import devices, on_gpu
from ..config.benchmark_names import BLIMP
from ..config.measuring import LEVEL
from .numbers import cell_label, listed, method_label, p_value, plain, signed, size_and_method, spread, with_interval

PAPERS_TOKENS_A_STEP = 1024 * CONTEXT_LENGTH


def abstract(runs: Runs, audited: pd.DataFrame, published_audit: pd.DataFrame) -> list[str]:
    """The answer, the audit of our runs (``audited``), and the audit of the published curves."""
    ours = (*answer(runs), *diverged(runs), _dead(audited), _best_pattern(audited), _spikes(audited))
    return [sentence for sentence in (*ours, *published(published_audit)) if sentence]


ENDS = {  # what the verdict on a held-out loss says of methods, and of their difference to full rank
    HIGHER: "at a higher held-out loss than {full}, by {apart} nats a token",
    LOWER: "at a lower held-out loss than {full}, by {apart} nats a token",
    EQUAL: "level with {full} in held-out loss, within the margin of {margin:g} nats a token ({gaps})",
    UNDECIDED: "at {gaps} nats a token from {full}, which does not decide between level and apart (margin: {margin:g})",
    "": "at {gaps} nats a token from {full}, without an interval",
}
CHANCE = 1.96  # standard errors that a change must pass to be told
MOST_NAMED = 5  # methods, or methods at a size, that a sentence names


def answer(runs: Runs) -> list[str]:
    """How the methods end beside full rank, by the verdicts on their held-out losses: a sentence a verdict."""
    table = differences(runs)
    table = table[(table.measure == LOSS) & table.difference.notna()]
    outcomes = table.verdict.str.removesuffix(ONE_SEED)
    found = {outcome: rows for outcome in ENDS if len(rows := table[outcomes == outcome])}
    return [_ending(outcome, rows, table, runs) for outcome, rows in found.items()]


def _ending(outcome: str, rows: pd.DataFrame, every: pd.DataFrame, runs: Runs) -> str:
    words = {
        "full": method_label(str(runs.full_rank_method)),
        "apart": spread(rows.difference.abs(), ".2f"),
        "gaps": spread(rows.difference, "+.2f").replace("-", "−"),
        "margin": runs.margin,
    }
    names = list(_places(rows, every))
    which = listed(names) if len(names) <= MOST_NAMED else f"{len(rows)} of {len(every)} comparisons"
    seeds = "" if rows.seeds.max() > 1 else " (one seed)"
    return f"{_first_upper(which)} end{'s' * (len(names) == 1)} {ENDS[outcome].format(**words)}{seeds}."


def _places(rows: pd.DataFrame, every: pd.DataFrame) -> Iterator[str]:
    """The methods of ``rows``, each with its sizes where ``every`` has it at others, too."""
    for method, at in rows.groupby("method", sort=False):
        part = bool(len(at) < (every.method == method).sum())
        yield method_label(str(method)) + f" at {listed(_words(at['size']))}" * part


def findings(runs: Runs, audited: pd.DataFrame) -> list[str]:
    """What else the numbers show, the most telling first; what a study cannot show is left out."""
    found = (_beside_counts(runs), _growth(runs), _dead(audited), _dropped(audited), _overlap(runs), _spikes(audited))
    return [sentence for sentence in (*found, _best_pattern(audited)) if sentence]


def _beside_counts(runs: Runs) -> str:
    """Which counted models the best of ours passes."""
    whole = {
        key: [c.name for c in cells if c.name not in runs.diverged] for key, cells in runs.by_size_and_method.items()
    }
    losses = {key: runs.losses.mean(names).mean for key, names in whole.items() if names}
    if not losses or not runs.yardsticks:
        return ""
    (size, method), loss = min(losses.items(), key=lambda found: found[1])
    sides: dict[str, list[str]] = {"below": [], "above": []}
    for name, counted in runs.yardsticks.items():
        sides["below" if loss < counted else "above"].append(f"{name} ({counted:.2f})")
    where = [f"{side} the counted {listed(names)}" for side, names in sides.items() if names]
    return f"The lowest loss, {loss:.2f} ({_label(size, method)}), lies {listed(where)}."


def _growth(runs: Runs) -> str:
    """How gaps change from the narrowest size to the widest, where chance alone does not explain it."""
    effects, widths = gap_effects(runs), {cell.size_name: cell.size.d_model for cell in runs.cells.values()}
    small, large = min(widths, key=lambda size: widths[size]), max(widths, key=lambda size: widths[size])
    changed = []
    for method in runs.methods:
        ends = [end for size in (small, large) if (end := effects.get((size, method))) and end.seeds]
        if small != large and len(ends) > 1:
            change, error = ends[1].mean - ends[0].mean, math.hypot(*(end.error for end in ends))
            if abs(change) > CHANCE * error:
                changed.append(f"{signed(change)} ({method_label(method)})")
    sizes = " and ".join(_words(pd.Series([small, large])))
    return f"Between {sizes}, the gap to full rank changes by {listed(changed)} nats a token." if changed else ""


def _dropped(audited: pd.DataFrame) -> str:
    """The methods whose merges lose a part of the update; empty where none does."""
    lost = outcomes(audited, "update_lost", "lost")
    if lost.empty:
        return ""
    return f"A merge of {listed(_methods_of(lost.cell))} drops {spread(lost.value, '.0%')} of the adapters' product."


def _overlap(runs: Runs) -> str:
    """How far each method's cycles move W2 in one set of directions."""
    rows = runs.regular()
    rows = rows[(rows.component == "w2") & (rows.quantity == "cycle_update") & (rows.metric == "overlap_right")]
    rows = rows[rows.method.isin([name for name, method in runs.methods_by_name.items() if method.reset_period])]
    means = rows.groupby(["method", "size"], sort=False).value.mean().dropna().groupby("method", sort=False)
    each = [f"{spread(shares, '.0%')} ({method_label(str(method))})" for method, shares in means]
    return (
        f"The directions in which one cycle moves W2 overlap with those of the cycle before by {listed(each)}."
        if each
        else ""
    )


def diverged_cells(source: Source) -> dict[str, list[str]]:
    """The cells that diverged, in words and each with its step, by the name of the method."""
    cells: dict[str, list[str]] = {}
    for name, step in source.diverged.items():
        cells.setdefault(source.cells[name].method_name, []).append(f"{cell_label(name)}, at step {step:,}")
    return cells


def diverged(runs: Runs) -> list[str]:
    """The cells that diverged, and how the report reads them; empty where no cell diverged."""
    which = [cell for cells in diverged_cells(runs).values() for cell in cells]
    if not which:
        return []
    return [
        f"{len(which)} of {len(runs.cells)} cells diverged: {'; '.join(which)}. The report reads a diverged cell up to"
        " its last checkpoint, and leaves it out of every comparison of held-out losses."
    ]


def _gaps(runs: Runs, final: pd.DataFrame) -> pd.Series:
    """By cell of another method: its held-out loss minus the held-out loss of full rank at equal size and seed."""
    loss = final.set_index("cell").held_out_loss
    gaps = {
        name: loss[name] - loss[full.name]
        for name, cell in runs.cells.items()
        if (full := runs.full_rank_of(cell)) and not {name, full.name} & set(runs.diverged)
    }
    return pd.Series(gaps, dtype=float)


def _headline(runs: Runs, final: pd.DataFrame) -> str:
    gaps = _gaps(runs, final)
    if gaps.empty:
        return ""
    better, apart = int((gaps > 0).sum()), spread(gaps.abs(), ".3f")
    methods = [runs.cells[str(name)].method for name in gaps.index]
    adapted = "adapters" if all(method.rank for method in methods) else "the other method"
    adapted = "ReLoRA" if all(method.restarts for method in methods) else adapted
    if better in (0, len(gaps)):
        lower, higher = ("full rank", adapted) if better else (adapted, "full rank")
        every = {1: "the one comparison", 2: "both comparisons"}.get(len(gaps), f"all {len(gaps)} comparisons")
        return f"In {every}, {lower} reaches a lower held-out loss than {higher}, by {apart} nats a token."
    return (
        f"Full rank reaches a lower held-out loss than {adapted} in {better} of {len(gaps)} comparisons. The"
        f" differences are {apart} nats a token."
    )


def _dead(audited: pd.DataFrame) -> str:
    dead = outcomes(audited, "first_gradient", "dead").cell
    if dead.empty:
        return ""
    return f"Before the first reset, the adapters of {listed(_methods_of(dead))} receive no gradient at all."


def _best_pattern(audited: pd.DataFrame) -> str:
    rows = audited[audited.key == "correlation"].dropna(subset="value")
    if rows.empty:
        return ""
    means = rows.groupby(rows.cell.map(_method), sort=False).value.mean()
    if len(means) < 2:
        return ""
    best, correlation = method_label(str(means.idxmax())), f"(mean correlation {means.max():.2f})"
    if means.max() > ALIKE:
        return f"Over cycles, the rank of the adapters follows the published curves best in {best} {correlation}."
    return (
        "Over cycles, the rank of the adapters follows the published curves in none of our methods;"
        f" {best} comes nearest {correlation}."
    )


PUBLISHED_FINDINGS = (  # measures, an outcome, and the words where every size has this outcome
    (("flat_start",), "flat", "the spectrum of the weights does not move in the first cycle"),
    (("later_spikes",), "spikes", "the loss spikes within 20 steps of most later resets"),
    (
        ("last_share_v", "last_share_o", "last_share_w2"),
        "grows",
        "the rank of the adapters grows from cycle to cycle, though each reading follows a reset",
    ),
    (("condition_number",), "bfloat16", "the condition numbers of updates are round-off of bfloat16"),
)


def published(audited: pd.DataFrame) -> list[str]:
    """One sentence of findings in the published curves, from the outcomes of their audit."""
    said = []
    for keys, outcome, text in PUBLISHED_FINDINGS:
        rows = audited[audited.key.isin(keys)]
        if len(rows) and (rows.outcome == outcome).all():
            said.append(text)
    return [
        f"In the published curves, {listed(said)}."
        if said
        else "The published curves show none of the faults we tested."
    ]


def comparisons(final: pd.DataFrame, tests: pd.DataFrame) -> list[str]:
    """A sentence for each size and method but full rank: loss and accuracy against full rank, over seeds."""
    by_cell, said = final.set_index("cell"), []
    for cells, seeds in tests.groupby(tests.cell.map(size_and_method), sort=False):
        adapted, full = by_cell.loc[seeds.cell], by_cell.loc[seeds.against]
        gap = pd.Series(adapted.held_out_loss.to_numpy() - full.held_out_loss.to_numpy())
        side = "above" if (gap > 0).all() else "below" if (gap < 0).all() else "on both sides of"
        said.append(
            f"{_label(*cells)}: the held-out loss is {spread(adapted.held_out_loss, '.3f')},"
            f" {spread(gap.abs(), '.3f')} nats {side} full rank, and the accuracy is {spread(adapted.accuracy, '.3f')}"
            f" against {spread(full.accuracy, '.3f')}. {_shown(seeds.p)} (one-sided p {_p_values(seeds.p)})."
        )
    return said


def _shown(p: pd.Series) -> str:
    """Whether the pairs show at the 5 % level that full rank is better; ``p`` has a value for each seed."""
    shown = int((p < LEVEL).sum())
    verb = "show" if shown == len(p) else "do not show" if shown == 0 else f"show in {shown} of {len(p)} seeds"
    return f"The pairs {verb} at the 5 % level that full rank is better"


def spectra(runs: Runs) -> list[str]:
    """A sentence for each size: PER of W2 at step 0, and at the end of each method."""
    rows, said = select(runs.labelled(), "weights", "per"), []
    rows = rows[rows.component == "w2"]
    for size in runs.sizes:
        of_size = rows[rows["size"] == size]
        means = of_size.groupby(["method", "step"], sort=False).value.mean()
        ends = [
            f"{means[method].sort_index().iloc[-1]:.3f} ({method_label(str(method))})"
            for method in of_size.method.unique()
        ]
        start = means.groupby("method").first().mean()
        said.append(f"{size.replace('_', ' ').capitalize()}: PER starts at {start:.3f} and ends at {listed(ends)}.")
    return said


def like_for_like(runs: Runs) -> list[str]:
    """A sentence for each size and method: how far W2's updates in successive cycles overlap, and their rank."""
    rows = runs.regular()
    rows = rows[rows.component == "w2"]
    overlap = rows[(rows.quantity == "cycle_update") & (rows.metric == "overlap_right")]
    rank = rows[(rows.quantity == "cumulative_update") & (rows.metric == "effective_rank")]
    last = rank[rank.step == rank.groupby("cell").step.transform("max")]
    said = []
    for cells, overlaps in overlap.groupby(overlap.cell.map(size_and_method), sort=False):
        reached, shared = last[last.cell.isin(overlaps.cell.unique())].value.mean(), overlaps.value.mean()
        overlapping = f"the leading input directions of a cycle overlap by {shared:.0%} with the cycle before"
        said.append(
            f"{_label(*cells)}: {'no two successive cycles both move W2' if pd.isna(shared) else overlapping},"
            f" and the net update since step 0 has effective rank {plain(float(reached))}."
        )
    return said


def verdicts(audited: pd.DataFrame) -> list[list[str]]:
    """Rows of a finding of the audit and a text: each verdict on its measures, with the methods that have it."""
    said: dict[str, list[str]] = {}
    for _, rows in audited.groupby("key", sort=False):
        each = [
            f"{_merged(with_it.verdict)} ({listed(_methods_with(with_it.cell, rows.cell))})"
            for _, with_it in rows.groupby("outcome", sort=False)
        ]
        finding, measure = rows.finding.iloc[0], rows.measure.iloc[0]
        said.setdefault(finding, []).append(f"{_first_upper(measure)}: {'; '.join(each)}.")
    return [[_first_upper(finding), " ".join(texts)] for finding, texts in said.items()]


def _merged(texts: pd.Series) -> str:
    """One text of ``texts`` that differ in their numbers alone: each number that differs becomes a range."""
    parts = zip(*(re.split(r"(\d+(?:\.\d+)?(?:e-?\d+)?)", text) for text in texts.unique()), strict=True)
    ends = ((min(part, key=float), max(part, key=float)) if len(set(part)) > 1 else (part[0],) for part in parts)
    return "".join(" to ".join(end) for end in ends)


def claimed(table: pd.DataFrame) -> list[list[str]]:
    """Rows of a claim of the ledger and a text: the published evidence, our measure, and each method's verdict."""
    said = []
    for claim, rows in table.groupby("claim", sort=False):
        first = rows.iloc[0]
        ours = [f"{method_label(row.method)}: {row.verdict}{_numbers(row)}" for _, row in rows.iterrows()]
        text = (
            f"Published: {first.published_evidence}. Our measure is {first.measure}. {_first_upper('; '.join(ours))}."
        )
        said.append([f"{claim} ({first.origin})", text])
    return said


def _numbers(row: pd.Series) -> str:
    """The measure of a row of the ledger and its test in brackets, as far as it has them."""
    numbers = [with_interval(row.value, row.value_low, row.value_high)] if pd.notna(row.value) else []
    numbers += [f"Holm p {p_value(row.p_holm)}"] if pd.notna(row.p_holm) else []
    return f" ({'; '.join(numbers)})" * bool(numbers)


def _methods_with(cells: pd.Series, every_cell: pd.Series) -> Iterable[str]:
    """The methods of ``cells``, each with a count where only some of its cells in ``every_cell`` are among them."""
    whole = every_cell.map(_method).value_counts()
    for method, count in cells.map(_method).value_counts(sort=False).items():
        part = "" if count == whole[method] else f"{count} of {whole[method]} cells of "
        yield part + method_label(str(method))


def patterns(table: pd.DataFrame, audited: pd.DataFrame) -> list[str]:
    """For each published size, our methods' adapters against the published curve, and the nearest method."""
    said = []
    for size, rows in table.groupby("published_size", sort=False):
        first, growth = rows.published_first.iloc[0], rows.published_growth.iloc[0]
        each = [
            f"{method_label(str(method))}: distance {spread(cells.distance, '.2f')}, correlation"
            f" {spread(cells.correlation, '.2f')}, first cycle {spread(cells['first'], '.2f')},"
            f" growth {spread(cells.growth, '.2f')}."
            for method, cells in rows.groupby("method", sort=False)
        ]
        said.append(
            f"The published curve of {size} has {first:.2f} in the first cycle and growth {growth:.2f}."
            f" {' '.join(each)} {_nearest(rows)}".rstrip()
        )
    return [sentence for sentence in (*said, _spikes(audited)) if sentence]


def _spikes(audited: pd.DataFrame) -> str:
    """The methods whose loss spikes after resets; empty where no cell is reset."""
    jumps, spiking = audited[audited.key == "spike"], outcomes(audited, "spike", "spikes").cell
    if jumps.empty:
        return ""
    if spiking.empty:
        return "In none of our cells does the loss spike after resets, unlike the published loss."
    return f"Like the published loss, the loss of {listed(_methods_with(spiking, jumps.cell))} spikes after resets."


def _nearest(rows: pd.DataFrame) -> str:
    """The nearest method by each measure, from means over its cells; empty for a single method."""
    means = rows.groupby("method", sort=False)[["distance", "correlation", "first", "published_first"]].mean()
    if len(means) == 1:
        return ""
    off = (means["first"] - means.published_first).abs()
    nearest = {"level": means.distance.idxmin(), "shape": means.correlation.fillna(-1).idxmax()}
    if off.notna().any():
        nearest["the first cycle"] = off.idxmin()
    places = [f"in {what} {method_label(str(method))}" for what, method in nearest.items()]
    return f"Nearest to it is {listed(places)}."


def scale(runs: Runs) -> list[str]:
    """The limits that the scale of our runs sets."""
    cell = next(iter(runs.cells.values()))
    tokens = cell.train.batch_size * cell.model.context_length
    periods = sorted({each.method.reset_period for each in runs.cells.values() if each.method.reset_period})
    said = []
    if periods and (min(periods) < RESET_PERIOD or tokens < PAPERS_TOKENS_A_STEP):
        said.append(
            f"The published cycles have {RESET_PERIOD:,} steps of {PAPERS_TOKENS_A_STEP:,} tokens; our cycles have"
            f" {listed([f'{period:,}' for period in periods])} steps of {tokens:,} tokens. The rank that adapters fill"
            " depends on the length and the rate of their training, so neither its level nor its growth carries over"
            " to the published scale. Two findings carry over: a gradient that is exactly zero, and a merge that drops"
            " a share of the update."
        )
    if cell.runtime.precision != "bfloat16":
        rounded = any(each.method.frozen_dtype == "bfloat16" for each in runs.cells.values())
        but, beyond = (", but for the frozen weights of some methods", " elsewhere") if rounded else ("", "")
        said.append(
            f"Our runs are in float32{but}, so they cannot show what bfloat16 did{beyond} to the published readings."
        )
    if all(each.method.restart != "undone" for each in runs.cells.values()):
        said.append(
            "No cell of this run models a restart that the optimizer undoes. The audit preset"
            " (workflow/presets/audit.yaml) adds such cells."
        )
    return said


def limits(runs: Runs) -> list[str]:
    """The limits of the study, as far as they apply."""
    cell = next(iter(runs.cells.values()))
    seeds = len({each.seed for each in runs.cells.values()})
    said = diverged(runs)
    if seeds == 1:
        said.append("Each method has one seed, and no interval covers the choice of the seed.")
    else:
        few = " A bootstrap over so few seeds understates their spread." * (seeds < 10)
        said.append(f"Each method has {seeds} seeds.{few}")
    if cell.train.steps < STEPS:
        said.append(f"Our cells train for {cell.train.steps:,} steps, the published runs for {STEPS:,}.")
    if runs.suite != BLIMP:
        said.append(f"The minimal pairs are {runs.suite}. Accuracy on them does not compare with a published accuracy.")
    return said


def places(manifests: Iterable[Mapping[str, Any]]) -> list[str]:
    """Sentences on the devices that trained the cells, each once."""
    sentences = [
        f"Each cell trained on {devices(manifest)} {'GPU' if on_gpu(manifest) else 'CPU core'}"
        f"{'s' * (devices(manifest) > 1)} ({manifest.get('platform', 'a system that was not recorded')})."
        for manifest in manifests
    ]
    return list(dict.fromkeys(sentences))


def versions(manifests: Iterable[Mapping[str, Any]]) -> list[str]:
    """Sentences on the versions of the software that trained the cells, each once."""
    lists = [
        ", ".join(f"{name} {version}" for name, version in sorted(manifest["versions"].items()))
        for manifest in manifests
    ]
    return [f"Versions: {versions}." for versions in dict.fromkeys(lists)]


def published_tests(tests: dict[str, dict[str, float]]) -> list[str]:
    """A sentence for each size: the published test on the published accuracies."""
    return [
        f"{size.capitalize()}: full rank is {'better' if test['difference'] > 0 else 'worse'} by"
        f" {abs(test['difference']):.3f} (one-sided p = {test['p']:.1e}; 95 % interval over paradigms"
        f" {test['difference_low']:.3f} to {test['difference_high']:.3f})."
        for size, test in tests.items()
    ]


def _method(cell: str) -> str:
    return cell.split("-")[1]


def _words(sizes: pd.Series) -> list[str]:
    return [str(size).replace("_", " ") for size in sizes]


def _label(size: str, method: str) -> str:
    return f"{size.replace('_', ' ')}, {method_label(method)}"


def _methods_of(cells: pd.Series) -> list[str]:
    return [method_label(method) for method in dict.fromkeys(cells.map(_method))]


def _p_values(values: pd.Series) -> str:
    low, high = p_value(float(values.min())), p_value(float(values.max()))
    return f"= {low}" if low == high else f"from {low} to {high}"


def _first_upper(text: str) -> str:
    return text[0].upper() + text[1:]
