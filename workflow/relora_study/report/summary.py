"""The outcome on one screen, from one source: for the terminal, as Markdown, and as the web report's first page."""

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..analysis.audit import audit
from ..analysis.differences import gap_effects
from ..analysis.effects import Effect
from ..analysis.published import Published
from ..analysis.results import Runs
from .numbers import in_rows, in_words, method_label, signed
from .sentences import answer, findings, limits, places, versions
from .tables import cost, final_results
from .templates import render

MOST_FINDINGS = 5


def outcome(runs: Runs) -> dict[str, Any]:
    """What every form of the outcome tells: answer, losses and gaps, counts, findings, limits, cost and what next."""
    return {
        "cells": len(runs.cells),
        "diverged": len(runs.diverged),
        "seeds": runs.seeds,
        "tokens": _tokens(runs),
        "answer": answer(runs),
        "losses": list(_losses(runs)),
        "counted": {name: f"{loss:.3f}" for name, loss in runs.yardsticks.items()},
        "findings": findings(runs, audit(runs))[:MOST_FINDINGS],
        "limits": limits(runs),
        "cost": _cost(runs),
        "run": [*places(runs.manifests), *versions(runs.manifests)],
    }


def first_page(source: Runs | Published, figure: Path) -> str:
    """The first page of the web report, in reStructuredText; of our runs with the image at ``figure``."""
    if isinstance(source, Runs):
        image = base64.encodebytes(figure.read_bytes()).decode()  # in lines: docutils reads none beyond 10,000 letters
        return render("first_page.rst", outcome(source) | {"image": image})
    told = {"hours": f"{cost(source).gpu_hours.sum():,.0f}", "table": in_rows(final_results(source))}
    return render("first_page_published.rst", told)


def _tokens(runs: Runs) -> str:
    """How many tokens a training reads, or the fewest and the most of them."""
    counts = sorted({int(str(runs.manifest(cell)["tokens"])) for cell in runs.cells.values()})
    return " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))


def _losses(runs: Runs) -> Iterator[list[str]]:
    """A row a method, a column a size: its loss and, behind it, what it is over full rank's, in nats a token."""
    effects = gap_effects(runs)
    yield ["held-out loss (nats/token)", *map(in_words, runs.sizes)]
    for name in runs.methods:
        yield [method_label(name), *(_of(runs, effects, size, name) for size in runs.sizes)]


def _of(runs: Runs, effects: Mapping[tuple[str, str], Effect], size: str, method: str) -> str:
    its = runs.by_size_and_method.get((size, method), [])
    whole = runs.whole(its)
    if not whole:
        return "diverged" if its else ""
    told = f"{runs.losses.mean([cell.name for cell in whole]).mean:.3f}"
    gap = effects.get((size, method))
    if gap and gap.seeds:
        ends = ", ".join(signed(end, 3) for end in gap.interval)
        told += f"  {signed(gap.mean, 3)}" + f" [{ends}]" * bool(gap.chance)
    return told + f" ({len(its) - len(whole)} of {len(its)} diverged)" * (len(whole) < len(its))


def _cost(runs: Runs) -> str:
    spent = cost(runs)
    return (
        f"Training took {spent.minutes.sum():,.1f} minutes in all ({spent.device_hours.sum():,.2f} {runs.hour_unit}),"
        f" the longest {spent.minutes.max():,.1f} minutes, and at most {spent.peak_MiB.max() / 1024:,.1f} GiB."
    )
