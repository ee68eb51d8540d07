"""The outcome in a screen of plain text: what each method lost, how far from full rank, and beside which counts."""

from collections.abc import Iterator

from ..analysis.effects import Effect
from ..analysis.results import Runs
from .numbers import method_label

FURTHER = "snakemake --cores all --config 'study={seeds: 3}'"


def summary(runs: Runs) -> str:
    """The lines that a run ends with: trainings, held-out losses and gaps by size and method, yardsticks, what next."""
    return "\n".join([_trainings(runs), "", *_losses(runs), "", *_counted(runs), _further(runs), ""])


def _trainings(runs: Runs) -> str:
    seeds, diverged = len({cell.seed for cell in runs.cells.values()}), len(runs.diverged)
    chance = "documents, and not of seeds" if seeds == 1 else "seeds and documents"
    ended = f"{diverged} of them diverged" if diverged else "none diverged"
    return f"{len(runs.cells)} trainings, {ended}. Brackets: 95 % intervals over the chance of {chance}."


def _losses(runs: Runs) -> Iterator[str]:
    """A line a method, a column a size: its loss and, behind it, what it is over full rank's, in nats a token."""
    header = ["held-out loss (nats/token)", *(f"{size.replace('_', ' ')}" for size in runs.sizes)]
    rows = [header, *([method_label(name), *(_of(runs, size, name) for size in runs.sizes)] for name in runs.methods)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _of(runs: Runs, size: str, method: str) -> str:
    its = runs.by_size_and_method.get((size, method), [])
    whole = [cell for cell in its if cell.name not in runs.diverged]
    if not whole:
        return "diverged"
    loss = f"{runs.losses.mean([cell.name for cell in whole]).mean:.3f}"
    pairs = [(cell.name, full.name) for cell in whole if (full := runs.reference_of(cell))]
    lost = f" ({len(its) - len(whole)} of {len(its)} diverged)" * (len(whole) < len(its))
    return (f"{loss}  {_signed(runs.losses.difference(pairs))}" if pairs else loss) + lost


def _signed(gap: Effect) -> str:
    """A gap with its sign and, where it has one, its interval; empty where every pair diverged."""
    if not gap.seeds:
        return ""
    low, high = gap.interval
    return f"{gap.mean:+.3f}" + f" [{low:+.3f}, {high:+.3f}]" * bool(gap.chance)


def _counted(runs: Runs) -> Iterator[str]:
    counts = ", ".join(f"{name} {loss:.3f}" for name, loss in runs.yardsticks.items())
    yield f"Counted on the same tokens: {counts}. A model that has learnt more than counts ends below them."


def _further(runs: Runs) -> str:
    seeds = len({cell.seed for cell in runs.cells.values()})
    return (
        f"For intervals over seeds, too: {FURTHER}" if seeds == 1 else "results/tables/differences.md has the verdicts."
    )
