"""The sentences of the paper that depend on the data. The numbers choose the words of each."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from ..analysis.audit import ALIKE, outcomes
from ..analysis.differences import LOSS, differences, gap_effects
from ..analysis.effects import EQUAL, HIGHER, LOWER, ONE_SEED, UNDECIDED
from ..analysis.published_recipe import CONTEXT_LENGTH, RESET_PERIOD, STEPS
from ..analysis.results import Runs, devices, on_gpu
from ..analysis.source import Source
from ..config import RateRatios
from ..config.benchmark_names import BLIMP
from .numbers import cell_label, in_words, listed, method_label, signed, spread

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
    return f"{which[0].upper()}{which[1:]} end{'s' * (len(names) == 1)} {ENDS[outcome].format(**words)}{seeds}."


def _places(rows: pd.DataFrame, every: pd.DataFrame) -> Iterator[str]:
    """The methods of ``rows``, each with its sizes where ``every`` has it at others, too."""
    for method, at in rows.groupby("method", sort=False):
        part = bool(len(at) < (every.method == method).sum())
        yield method_label(str(method)) + f" at {listed(map(in_words, at['size']))}" * part


def findings(runs: Runs, audited: pd.DataFrame) -> list[str]:
    """What else the numbers show, the most telling first; what a study cannot show is left out."""
    found = (_beside_counts(runs), _growth(runs), _dead(audited), _dropped(audited), _overlap(runs), _spikes(audited))
    return [sentence for sentence in (*found, _best_pattern(audited)) if sentence]


def findings_of_figures(runs: Runs, audited: pd.DataFrame) -> dict[str, str]:
    """What each of the paper's figures shows, in a sentence that its caption begins with, by the figure's name."""
    found = {
        "gap_over_training": " ".join(answer(runs)),
        "training_curves": _beside_counts(runs),
        "cycle_overlap": _overlap(runs),
        "gap_by_width": _growth(runs),
        "resets": _spikes(audited),
        "adapter_pattern": _best_pattern(audited),
    }
    return {name: sentence for name, sentence in found.items() if sentence}


def _beside_counts(runs: Runs) -> str:
    """Which counted models the best of ours passes."""
    whole = {key: [cell.name for cell in runs.whole(cells)] for key, cells in runs.by_size_and_method.items()}
    losses = {key: runs.losses.mean(names).mean for key, names in whole.items() if names}
    if not losses or not runs.yardsticks:
        return ""
    (size, method), loss = min(losses.items(), key=lambda found: found[1])
    sides: dict[str, list[str]] = {"below": [], "above": []}
    for name, counted in runs.yardsticks.items():
        sides["below" if loss < counted else "above"].append(f"{name} ({counted:.2f})")
    where = [f"{side} the counted {listed(names)}" for side, names in sides.items() if names]
    return f"The lowest loss, {loss:.2f} ({in_words(size)}, {method_label(method)}), lies {listed(where)}."


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
    sizes = f"{in_words(small)} and {in_words(large)}"
    return f"Between {sizes}, the gap to full rank changes by {listed(changed)} nats a token." if changed else ""


def _dropped(audited: pd.DataFrame) -> str:
    """The methods whose merges lose a part of the update; empty where none does."""
    lost = outcomes(audited, "update_lost", "lost")
    if lost.empty:
        return ""
    return f"A merge of {listed(_methods_of(lost.method))} drops {spread(lost.value, '.0%')} of the adapters' product."


def _overlap(runs: Runs) -> str:
    """How far each method's cycles move W2 in one set of directions."""
    rows = runs.regular()
    rows = rows[(rows.component == "w2") & (rows.quantity == "cycle_update") & (rows.metric == "overlap_right")]
    rows = rows[rows.method.isin([name for name, method in runs.methods_by_name.items() if method.restarts])]
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
    said = (
        f"{len(which)} of {len(runs.cells)} cells diverged: {'; '.join(which)}. The report reads a diverged cell up to"
        " its last checkpoint, and leaves it out of every comparison of held-out losses."
    )
    return [said] if which else []


def _dead(audited: pd.DataFrame) -> str:
    dead = outcomes(audited, "first_gradient", "dead").method
    if dead.empty:
        return ""
    return f"Before the first reset, the adapters of {listed(_methods_of(dead))} receive no gradient at all."


def _best_pattern(audited: pd.DataFrame) -> str:
    rows = audited[audited.key == "correlation"].dropna(subset="value")
    means = rows.groupby("method", sort=False).value.mean()
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


def _methods_with(rows: pd.DataFrame, every: pd.DataFrame) -> Iterable[str]:
    """The methods of ``rows``, each with a count where only some of its cells in ``every`` are among them."""
    whole = every.method.value_counts()
    for method, count in rows.method.value_counts(sort=False).items():
        part = "" if count == whole[method] else f"{count} of {whole[method]} cells of "
        yield part + method_label(str(method))


def _spikes(audited: pd.DataFrame) -> str:
    """The methods whose loss spikes after resets; empty where no cell is reset."""
    jumps, spiking = audited[audited.key == "spike"], outcomes(audited, "spike", "spikes")
    if jumps.empty:
        return ""
    if spiking.empty:
        return "In none of our cells does the loss spike after resets, unlike the published loss."
    return f"Like the published loss, the loss of {listed(_methods_with(spiking, jumps))} spikes after resets."


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
    seeds = len(runs.seeds)
    said = diverged(runs)
    if seeds == 1:
        said.append("Each method has one seed, and no interval covers the choice of the seed.")
    else:
        few = " A bootstrap over so few seeds understates their spread." * (seeds < 10)
        said.append(f"Each method has {seeds} seeds.{few}")
    if all(each.method.rate_ratios == RateRatios() for each in runs.cells.values()):
        said.append(
            "All weights of a method share one learning rate, and rates by group change the gaps: the preset `fair`"
            " searches them (docs/findings.md)."
        )
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


def _methods_of(methods: pd.Series) -> list[str]:
    return [method_label(method) for method in dict.fromkeys(methods)]
