"""The paper: its numbers and its data-dependent sentences go to one file, which the Typst source reads."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import typst

from ..analysis.adapter_pattern import adapter_pattern
from ..analysis.audit import audit
from ..analysis.naming import shows_published
from ..analysis.published import Published
from ..analysis.results import Runs
from ..analysis.significance import published_test
from ..config import Report
from ..files import write_json, write_whole
from . import sentences
from .captions import captions, published_captions
from .landing import places, versions
from .numbers import cell_label, method_label, plain, readable
from .tables import final_results, mark, models, significance

Rows = list[list[str]]
METHOD_COLUMNS = {
    "method": "method",
    "rank": "r",
    "alpha": "α",
    "adapter_initialization": "first A",
    "merge": "merge",
    "restart": "restart",
    "reset_period": "cycle",
    "schedule": "schedule",
    "warmup_steps": "warm-up",
    "rewarmup_steps": "re-warm-up",
}


def typeset(source: Path, found: dict[str, Any], folder: Path, output: Path) -> None:
    """Compile ``source``, which finds figures and ``paper/values.json``, written from ``found``, in ``folder``."""
    write_json(folder / "paper" / "values.json", found)
    place = folder.absolute()
    inputs = {"results": place.as_posix()}  # a module's source is in another folder than the results: `root` holds both
    pdf: bytes = typst.compile(str(source), root=place.anchor, sys_inputs=inputs)
    write_whole(output, lambda path: path.write_bytes(pdf))


def values(runs: Runs, settings: Report) -> dict[str, Any]:
    """Every number, table and sentence of the paper that depends on the data."""
    final, tests, found, patterns = (make(runs) for make in (final_results, significance, audit, adapter_pattern))
    published, audited = Published(), audit(Published())
    manifests = [runs.manifest(cell) for cell in runs.cells.values()]
    whole = ~(tests.cell.isin(list(runs.diverged)) | tests.against.isin(list(runs.diverged)))
    return {
        "title": settings.title,
        "study": _study(runs),
        "sizes": runs.sizes,
        "captions": captions(runs.cells, shows_published(settings, runs.cells), runs.suite)["figures"],
        "shapes": _shapes(runs),
        "methods": _methods(runs),
        "models": _rows(mark(models(_one_seed(runs)), runs.diverged)),
        "final": _rows(mark(_without(final, ["mean_text_perplexity"]), runs.diverged)),
        "significance": _rows(
            mark(
                tests[["cell", "difference", "difference_low", "difference_high", "z", "p", "mcnemar_p"]],
                runs.diverged,
            )
        ),
        "published": _rows(final_results(published)),
        "audit": _by_method(found, runs.diverged),
        "audited": sentences.verdicts(found),
        "released": _by_size(audited),
        "abstract": sentences.abstract(runs, final, found, audited),
        "results": [*sentences.diverged(runs), *sentences.comparisons(final, tests[whole])],
        "spectra": sentences.spectra(runs),
        "like": sentences.like_for_like(runs),
        "patterns": sentences.patterns(patterns, found),
        "scale": sentences.scale(runs),
        "limits": sentences.limits(runs),
        "run": [*places(manifests), *versions(manifests)],
    }


def published_values(source: Published) -> dict[str, Any]:
    """The numbers, tables and sentences of the paper on the authors' values alone."""
    found = audit(source)
    return {
        "sizes": source.sizes,
        "captions": published_captions()["figures"],
        "models": _rows(models(source)),
        "final": _rows(final_results(source)),
        "significance": _rows(significance(source)),
        "tests": sentences.published_tests({size: published_test(size) for size in source.sizes}),
        "released": _by_size(found),
        "abstract": sentences.published(found),
    }


def _study(runs: Runs) -> dict[str, str]:
    cell = next(iter(runs.cells.values()))
    recipe = cell.train
    return {
        "cells": str(len(runs.cells)),
        "seeds": ", ".join(map(str, dict.fromkeys(cell.seed for cell in runs.cells.values()))),
        "steps": f"{recipe.steps:,}",
        "batch": str(recipe.batch_size),
        "context": f"{cell.model.context_length:,}",
        "vocabulary": f"{cell.model.vocab_size:,}",
        "tokens": f"{recipe.steps * recipe.batch_size * cell.model.context_length:,}",
        "rate": runs.peak_rates(),
        "betas": " and ".join(f"{beta:g}" for beta in recipe.betas),
        "decay": f"{recipe.weight_decay:g}",
        "suite": runs.suite,
    }


def _shapes(runs: Runs) -> Rows:
    sizes = {cell.size_name: cell.size for cell in runs.cells.values()}
    header = ["size", "width", "FFN", "layers", "heads", "KV heads"]
    return [header] + [
        [name.replace("_", " "), *(plain(value) for value in size.model_dump().values())]
        for name, size in sizes.items()
    ]


def _methods(runs: Runs) -> Rows:
    methods = {cell.method_name: cell.method for cell in runs.cells.values()}
    rows = []
    for name, method in methods.items():
        settings = method.model_dump() | {"method": method_label(name)}
        if not method.rank:
            settings |= dict.fromkeys(list(METHOD_COLUMNS)[1:7], None) | {"rewarmup_steps": None}
        rows.append([plain(settings[key]).replace("_", " ") for key in METHOD_COLUMNS])
    return [list(METHOD_COLUMNS.values()), *rows]


def _by_method(found: pd.DataFrame, diverged: Mapping[str, int]) -> Rows:
    """The audit's values, means over seeds: a row a measure; for each size the published value, then its methods."""
    found = found.assign(label=found.cell.map(lambda cell: cell_label(cell, seed=False)))
    found = found.assign(size=found.label.str.split(", ").str[0])
    columns = {}
    for size, own in found.groupby("size", sort=False):
        by_measure = own.groupby("measure", sort=False)
        columns[f"{size}, published"] = by_measure.published.first()
        for label, cells in own.groupby("label", sort=False):
            columns[label + " †" * bool(cells.cell.isin(list(diverged)).any())] = cells.groupby(
                "measure", sort=False
            ).value.mean()
    table = pd.DataFrame(columns).loc[found.measure.unique()]
    header = ["", *table.columns]
    return [header] + [[str(name), *map(plain, row)] for name, row in zip(table.index, table.to_numpy(), strict=True)]


def _by_size(found: pd.DataFrame) -> Rows:
    """The audit of the published curves: a row a measure, a column a size, and the verdicts where they are the same."""
    rows = [["", *(str(size) for size in found["size"].unique()), "verdict"]]
    for (_, measure), own in found.groupby(["finding", "measure"], sort=False):
        rows.append([str(measure), *map(plain, own.value), "; ".join(own.verdict.unique())])
    return rows


def _one_seed(runs: Runs) -> Runs:
    """The cells of the first seed alone: where seeds do not differ."""
    seed = next(iter(runs.cells.values())).seed
    cells = {name: cell for name, cell in runs.cells.items() if cell.seed == seed}
    return replace(runs, cells=cells)


def _without(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    return table.drop(columns=names)


def _rows(table: pd.DataFrame) -> Rows:
    words = readable(table)
    return [list(words.columns), *words.to_numpy().tolist()]
