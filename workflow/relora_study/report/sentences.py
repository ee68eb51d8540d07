"""The paper's sentences that depend on the data: each is chosen by the numbers, so none is false for others."""

from collections.abc import Iterable

import pandas as pd

from ..analysis.audit import outcomes
from ..analysis.published_recipe import CONTEXT_LENGTH, RESET_PERIOD, STEPS
from ..analysis.results import Runs
from ..analysis.source import Source, select
from ..config.evaluated import BLIMP
from ..evaluate.proportions import LEVEL
from .numbers import cell_label, method_label, p_value, plain

PAPERS_TOKENS_A_STEP = 1024 * CONTEXT_LENGTH


def abstract(runs: Runs, final: pd.DataFrame, found: pd.DataFrame, audited: pd.DataFrame) -> list[str]:
    """The headline, the audit ``found`` of the runs, and the audit ``audited`` of the published curves."""
    ours = (_headline(runs, final), *diverged(runs), _dead(found), _best_pattern(found), _spikes(found))
    return [sentence for sentence in (*ours, *published(audited)) if sentence]


def diverged_cells(source: Source) -> dict[str, list[str]]:
    """Label of a method -> its cells that diverged, in words, each with the step."""
    found: dict[str, list[str]] = {}
    for name, step in source.diverged.items():
        label = method_label(source.cells[name].method_name)
        found.setdefault(label, []).append(f"{cell_label(name)}, at step {step:,}")
    return found


def diverged(runs: Runs) -> list[str]:
    """How many cells diverged, which, and what is read of them; nothing where none did."""
    which = [cell for cells in diverged_cells(runs).values() for cell in cells]
    if not which:
        return []
    return [
        f"{len(which)} of {len(runs.cells)} cells diverged: {'; '.join(which)}. A diverged cell is read up to its last"
        " whole checkpoint and enters no comparison of held-out losses."
    ]


def _gaps(runs: Runs, final: pd.DataFrame) -> pd.Series:
    """Held-out loss of each adapter cell minus that of full rank of the same size and seed, by cell."""
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
    better, spread = int((gaps > 0).sum()), _spread(gaps.abs(), 3)
    if better in (0, len(gaps)):
        lower, higher = ("full rank", "ReLoRA") if better else ("ReLoRA", "full rank")
        every = {1: "the one comparison", 2: "both comparisons"}.get(len(gaps), f"all {len(gaps)} comparisons")
        return f"In {every}, {lower} reaches a lower held-out loss than {higher}, by {spread} nats a token."
    return (
        f"Full rank reaches a lower held-out loss than ReLoRA in {better} of {len(gaps)} comparisons; the differences"
        f" are {spread} nats a token."
    )


def _dead(found: pd.DataFrame) -> str:
    dead = outcomes(found, "first_gradient", "dead").cell
    if dead.empty:
        return ""
    return f"Before the first reset the adapters of {_listed(_methods_of(dead))} receive no gradient at all."


def _best_pattern(found: pd.DataFrame) -> str:
    rows = found[found.key == "correlation"].dropna(subset="value")
    if rows.empty:
        return ""
    means = rows.groupby(rows.cell.map(_method), sort=False).value.mean()
    if len(means) < 2:
        return ""
    best = str(means.idxmax())
    strength = "follow" if means.max() > 0.5 else "come nearest to, without following,"
    return (
        f"Among our variants, the adapters of {method_label(best)} {strength} the published ones in how their"
        f" rank changes over cycles (mean correlation {means.max():.2f})."
    )


PUBLISHED_FINDINGS = (  # measures, their outcome, and what it shows where every size has it
    (("flat_start",), "flat", "weights whose spectrum does not move in the first cycle"),
    (("later_jump",), "spikes", "a loss that spikes within 20 steps of every later reset"),
    (
        ("last_share_v", "last_share_o", "last_share_w2"),
        "grows",
        "adapters whose rank grows from cycle to cycle, though each reading follows a reset",
    ),
    (("condition_number",), "bfloat16", "condition numbers of updates that are bfloat16's rounding"),
)


def published(audited: pd.DataFrame) -> list[str]:
    """What the published curves show by themselves, in one sentence, by their audit's outcomes."""
    said = []
    for keys, outcome, text in PUBLISHED_FINDINGS:
        rows = audited[audited.key.isin(keys)]
        if len(rows) and (rows.outcome == outcome).all():
            said.append(text)
    return [
        f"The published curves show {'; '.join(said)}."
        if said
        else "The published curves show none of the faults we tested."
    ]


def comparisons(final: pd.DataFrame, tests: pd.DataFrame) -> list[str]:
    """A sentence for each adapter method and size: what the numbers say of it against full rank."""
    by_cell, said = final.set_index("cell"), []
    tests = tests.assign(label=tests.cell.map(lambda cell: cell_label(cell, seed=False)))
    for label, own in tests.groupby("label", sort=False):
        here, full = by_cell.loc[own.cell], by_cell.loc[own.against]
        gap = pd.Series(here.held_out_loss.to_numpy() - full.held_out_loss.to_numpy())
        side = "above" if (gap > 0).all() else "below" if (gap < 0).all() else "on both sides of"
        shown = int((own.p < LEVEL).sum())
        clear = "is" if shown == len(own) else "is not" if shown == 0 else f"is, in {shown} of {len(own)} seeds,"
        said.append(
            f"{label}: held-out loss {_spread(here.held_out_loss, 3)}, {_spread(gap.abs(), 3)} nats {side} full rank;"
            f" accuracy {_spread(here.accuracy, 3)} against {_spread(full.accuracy, 3)}. That full rank is better on"
            f" the pairs {clear} shown at the 5 % level (one-sided p {_p_values(own.p)})."
        )
    return said


def spectra(runs: Runs) -> list[str]:
    """How PER of W2 ends, by size and method, against where it began."""
    rows, said = select(runs.labelled(), "weights", "per"), []
    rows = rows[rows.component == "w2"]
    for size in runs.sizes:
        own = rows[(rows["size"] == size)]
        means = own.groupby(["method", "step"], sort=False).value.mean()
        ends = [
            f"{method_label(str(method))} {curve.iloc[-1]:.3f}"
            for method, curve in ((m, means[m].sort_index()) for m in own.method.unique())
        ]
        start = means.groupby("method").first().mean()
        said.append(f"{size.replace('_', ' ').capitalize()}: from {start:.3f} at step 0 to {_listed(ends)}.")
    return said


def like_for_like(runs: Runs) -> list[str]:
    """How much of one cycle's update of W2 lies in the directions of the cycle before, and how far it ranks."""
    rows = runs.regular()
    rows = rows[rows.component == "w2"]
    overlap = rows[(rows.quantity == "cycle_update") & (rows.metric == "overlap_right")]
    rank = rows[(rows.quantity == "cumulative_update") & (rows.metric == "effective_rank")]
    last = rank[rank.step == rank.groupby("cell").step.transform("max")]
    said = []
    for label, own in overlap.groupby(overlap.cell.map(lambda cell: cell_label(cell, seed=False)), sort=False):
        cells = own.cell.unique()
        reached = last[last.cell.isin(cells)].value.mean()
        said.append(
            f"{label}: {own.value.mean():.0%} of the leading input directions of a cycle's update are those of the"
            f" cycle before; the whole update since step 0 has effective rank {plain(float(reached))}."
        )
    return said


def verdicts(found: pd.DataFrame) -> list[list[str]]:
    """For each finding of the audit the verdicts on its measures, and whose they are: rows of finding, text."""
    said: dict[str, list[str]] = {}
    for (finding, measure), own in found.groupby(["finding", "measure"], sort=False):
        each = [
            f"{verdict} ({_listed(_cells_of(cells.cell, own.cell))})"
            for verdict, cells in own.groupby("verdict", sort=False)
        ]
        said.setdefault(str(finding), []).append(f"{_first_upper(str(measure))}: {'; '.join(each)}.")
    return [[_first_upper(finding), " ".join(texts)] for finding, texts in said.items()]


def _cells_of(cells: pd.Series, everyone: pd.Series) -> Iterable[str]:
    """Methods, with a count where only some of a method's cells are meant."""
    whole = everyone.map(_method).value_counts()
    for method, count in cells.map(_method).value_counts(sort=False).items():
        part = "" if count == whole[method] else f", {count} of {whole[method]} cells"
        yield method_label(str(method)) + part


def patterns(table: pd.DataFrame, found: pd.DataFrame) -> list[str]:
    """Which method's adapters are nearest to the published ones: sentences for each published size, by measure."""
    said = []
    for size, own in table.groupby("published_size", sort=False):
        first, growth = own.published_first.iloc[0], own.published_growth.iloc[0]
        each = [
            f"{method_label(str(method))}: distance {_spread(part.distance)}, correlation {_spread(part.correlation)},"
            f" first cycle {_spread(part['first'])}, growth {_spread(part.growth)}-fold"
            for method, part in own.groupby("method", sort=False)
        ]
        said.append(
            f"Against the published curve of {size} (first cycle {first:.2f} of the ceiling, V grows"
            f" {growth:.2g}-fold): {'; '.join(each)}. {_nearest(own)}"
        )
    return [sentence for sentence in (*said, _spikes(found)) if sentence]


def _spikes(found: pd.DataFrame) -> str:
    """Whose loss spikes after resets; empty where no cell is reset."""
    jumps, some = found[found.key == "spike"], outcomes(found, "spike", "spikes").cell
    where = _listed(_cells_of(some, jumps.cell)) if len(some) else "none of our cells"
    return f"The loss spikes after resets, as the published loss does, in {where}." if len(jumps) else ""


def _nearest(own: pd.DataFrame) -> str:
    """Which method is nearest by each measure, means over its cells."""
    means = own.groupby("method", sort=False)[["distance", "correlation", "first", "published_first"]].mean()
    off = (means["first"] - means.published_first).abs()
    by_measure = {
        "in level over all cycles": means.distance.idxmin(),
        "in shape": means.correlation.fillna(-1).idxmax(),
        "in the first cycle": off.idxmin(),
    }
    if len(means) == 1:
        return ""
    named = [f"{measure} {method_label(str(method))}" for measure, method in by_measure.items()]
    return f"Nearest are, {_listed(named)}."


def scale(runs: Runs) -> list[str]:
    """What the scale of these runs cannot show."""
    cell = next(iter(runs.cells.values()))
    tokens = cell.train.batch_size * cell.model.context_length
    periods = sorted({one.method.reset_period for one in runs.cells.values() if one.method.reset_period})
    said = []
    if periods and (min(periods) < RESET_PERIOD or tokens < PAPERS_TOKENS_A_STEP):
        said.append(
            f"The published cycles have {RESET_PERIOD:,} steps of {PAPERS_TOKENS_A_STEP:,} tokens; ours have"
            f" {_listed([f'{period:,}' for period in periods])} of {tokens:,}. How far adapters fill their"
            " rank depends on how long and how fast they train, so the level of their rank, and its growth, do not"
            " carry over; a gradient of exactly zero and a merge that drops a share of the update do."
        )
    if cell.runtime.precision != "bfloat16":
        said.append("The runs are in float32, so nothing in them shows what bfloat16 did to the published readings.")
    if all(one.method.restart != "undone" for one in runs.cells.values()):
        said.append(
            "No cell here models a restart that the optimizer undoes; the audit preset adds it"
            " (workflow/presets/audit.yaml)."
        )
    return said


def limits(runs: Runs) -> list[str]:
    """What to keep in mind, as far as it applies."""
    cell = next(iter(runs.cells.values()))
    seeds = len({one.seed for one in runs.cells.values()})
    said = diverged(runs)
    if seeds == 1:
        said.append("One seed a cell: differences between cells include the seed's, and no interval here covers it.")
    else:
        said.append(f"{seeds} seeds a cell" + ": a bootstrap over so few understates how they spread." * (seeds < 10))
    if cell.train.steps < STEPS:
        said.append(f"Training stops after {cell.train.steps:,} steps; the paper's runs have {STEPS:,}.")
    if runs.suite != BLIMP:
        said.append(f"The minimal pairs are {runs.suite}, and no accuracy here is to be set beside a published one.")
    return said


def published_tests(tests: dict[str, dict[str, float]]) -> list[str]:
    """What the published test says on the published accuracies, by size."""
    return [
        f"{size.capitalize()}: full rank is {'better' if one['difference'] > 0 else 'worse'} by"
        f" {abs(one['difference']):.3f} (one-sided p = {one['p']:.1e}; over paradigms the difference lies between"
        f" {one['difference_low']:.3f} and {one['difference_high']:.3f})."
        for size, one in tests.items()
    ]


def _method(cell: str) -> str:
    return cell.split("-")[1]


def _methods_of(cells: pd.Series) -> list[str]:
    return [method_label(method) for method in dict.fromkeys(cells.map(_method))]


def _spread(values: pd.Series, places: int = 2) -> str:
    low, high = (f"{value:.{places}f}" for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def _p_values(values: pd.Series) -> str:
    low, high = p_value(float(values.min())), p_value(float(values.max()))
    return f"= {low}" if low == high else f"from {low} to {high}"


def _listed(parts: Iterable[str]) -> str:
    """``a, b and c``."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def _first_upper(text: str) -> str:
    return text[0].upper() + text[1:]
