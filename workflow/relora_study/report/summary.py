"""The outcome on one screen, from one source: for the terminal, as Markdown, and as the web report's first page."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..analysis.audit import audit
from ..analysis.published import Published
from ..analysis.results import Runs
from .escape import markdown, rst
from .numbers import method_label, readable, signed
from .sentences import answer, findings, limits, places, versions
from .tables import cost, final_results

TEMPLATES = Path(__file__).parents[2] / "report"
MOST_FINDINGS = 5

Rows = list[list[str]]


def outcome(runs: Runs) -> dict[str, Any]:
    """What every form of the outcome tells: answer, losses and gaps, counts, findings, limits, cost and what next."""
    manifests = [runs.manifest(cell) for cell in runs.cells.values()]
    seeds = sorted({cell.seed for cell in runs.cells.values()})
    return {
        "cells": len(runs.cells),
        "diverged": len(runs.diverged),
        "seeds": seeds,
        "tokens": _tokens(runs),
        "answer": answer(runs),
        "losses": list(_losses(runs)),
        "counted": {name: f"{loss:.3f}" for name, loss in runs.yardsticks.items()},
        "findings": findings(runs, audit(runs))[:MOST_FINDINGS],
        "limits": limits(runs),
        "cost": _cost(runs),
        "run": [*places(manifests), *versions(manifests)],
    }


def render(template: str, told: dict[str, Any]) -> str:
    """The ``template`` of workflow/report, filled with what is ``told``."""
    folder = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    folder.filters |= {"rst": rst, "columns": _columns, "pipe": _pipe, "grid": _grid}
    return folder.get_template(template).render(told)


def first_page(source: Runs | Published, figure: Path) -> str:
    """The first page of the web report, in reStructuredText; of our runs with the image at ``figure``."""
    if isinstance(source, Runs):
        image = base64.encodebytes(figure.read_bytes()).decode()  # in lines: docutils reads none beyond 10,000 letters
        return render("first_page.rst", outcome(source) | {"image": image})
    words = readable(final_results(source))
    table = [list(words.columns), *words.to_numpy().tolist()]
    return render("first_page_published.rst", {"hours": f"{cost(source).gpu_hours.sum():,.0f}", "table": table})


def _tokens(runs: Runs) -> str:
    """How many tokens a training reads, or the fewest and the most of them."""
    counts = sorted({int(str(runs.manifest(cell)["tokens"])) for cell in runs.cells.values()})
    return " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))


def _losses(runs: Runs) -> Iterator[list[str]]:
    """A row a method, a column a size: its loss and, behind it, what it is over full rank's, in nats a token."""
    yield ["held-out loss (nats/token)", *(f"{size.replace('_', ' ')}" for size in runs.sizes)]
    for name in runs.methods:
        yield [method_label(name), *(_of(runs, size, name) for size in runs.sizes)]


def _of(runs: Runs, size: str, method: str) -> str:
    its = runs.by_size_and_method.get((size, method), [])
    whole = [cell for cell in its if cell.name not in runs.diverged]
    if not whole:
        return "diverged" if its else ""
    told = f"{runs.losses.mean([cell.name for cell in whole]).mean:.3f}"
    gap = runs.losses.difference([(cell.name, full.name) for cell in whole if (full := runs.reference_of(cell))])
    if gap.seeds:
        ends = ", ".join(signed(end, 3) for end in gap.interval)
        told += f"  {signed(gap.mean, 3)}" + f" [{ends}]" * bool(gap.chance)
    return told + f" ({len(its) - len(whole)} of {len(its)} diverged)" * (len(whole) < len(its))


def _cost(runs: Runs) -> str:
    spent = cost(runs)
    return (
        f"Training took {spent.minutes.sum():,.1f} minutes in all ({spent.device_hours.sum():,.2f} {runs.hour_unit}),"
        f" the longest {spent.minutes.max():,.1f} minutes, and at most {spent.peak_MiB.max() / 1024:,.1f} GiB."
    )


def _columns(rows: Rows) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(map(str.rstrip, padded))


def _pipe(rows: Rows) -> str:
    cells = [[markdown(cell) for cell in row] for row in rows]
    return str(pd.DataFrame(cells[1:], columns=cells[0]).to_markdown(index=False, disable_numparse=True))


def _grid(rows: Rows) -> str:
    table = pd.DataFrame([[rst(cell) for cell in row] for row in rows[1:]], columns=rows[0])
    return str(table.to_markdown(index=False, tablefmt="grid", disable_numparse=True))
