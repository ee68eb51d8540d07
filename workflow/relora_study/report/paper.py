"""The paper: its numbers and its data-dependent sentences go to one file, which the Typst source reads."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import typst

from ..files import write_json, write_whole
from . import sentences
from .audit import audit
from .captions import captions
from .landing import places, versions
from .load import Results
from .numbers import cell_label, method_label, plain, readable
from .pattern import adapter_pattern
from .published import published_audit
from .shapes import WIDTHS
from .significance import published_test
from .tables import final_results, models, released_models, released_results, released_significance, significance

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
    compile_source = partial(typst.compile, str(source), root=place.anchor, sys_inputs=inputs)
    write_whole(output, lambda path: path.write_bytes(compile_source()))


def values(results: Results, title: str) -> dict[str, Any]:
    """Every number, table and sentence of the paper that depends on the data."""
    final, tests, found, patterns = (make(results) for make in (final_results, significance, audit, adapter_pattern))
    manifests = [results.manifest(cell) for cell in results.cells.values()]
    return {
        "title": title,
        "study": _study(results),
        "sizes": results.sizes,
        "captions": captions(results.cells, results.published, results.suite)["figures"],
        "shapes": _shapes(results),
        "methods": _methods(results),
        "models": _rows(models(_one_seed(results))),
        "final": _rows(_without(final, ["mean_text_perplexity"])),
        "significance": _rows(
            tests[["cell", "difference", "difference_low", "difference_high", "z", "p", "mcnemar_p"]]
        ),
        "published": _rows(released_results()),
        "audit": _by_method(found),
        "audited": sentences.verdicts(found),
        "released": _by_size(published_audit()),
        "abstract": sentences.abstract(results, final, found),
        "results": sentences.comparisons(results, final, tests),
        "spectra": sentences.spectra(results),
        "like": sentences.like_for_like(results),
        "patterns": sentences.patterns(patterns, found),
        "scale": sentences.scale(results),
        "limits": sentences.limits(results),
        "run": [*places(manifests), *versions(manifests)],
    }


def released_values() -> dict[str, Any]:
    """The same of the released values alone."""
    return {
        "sizes": list(WIDTHS),
        "captions": captions({}, "only", "BLiMP")["figures"],
        "models": _rows(released_models()),
        "final": _rows(released_results()),
        "significance": _rows(released_significance()),
        "tests": sentences.released_tests({size: published_test(size) for size in WIDTHS}),
        "released": _by_size(published_audit()),
        "abstract": sentences.released(),
    }


def _study(results: Results) -> dict[str, str]:
    cell = next(iter(results.cells.values()))
    recipe = cell.train
    return {
        "cells": str(len(results.cells)),
        "seeds": ", ".join(map(str, dict.fromkeys(cell.seed for cell in results.cells.values()))),
        "steps": f"{recipe.steps:,}",
        "batch": str(recipe.batch_size),
        "context": f"{cell.model.context_length:,}",
        "vocabulary": f"{cell.model.vocab_size:,}",
        "tokens": f"{recipe.steps * recipe.batch_size * cell.model.context_length:,}",
        "rate": f"{recipe.learning_rate:g}",
        "betas": " and ".join(f"{beta:g}" for beta in recipe.betas),
        "decay": f"{recipe.weight_decay:g}",
        "suite": results.suite,
    }


def _shapes(results: Results) -> Rows:
    sizes = {cell.size_name: cell.size for cell in results.cells.values()}
    header = ["size", "width", "FFN", "layers", "heads", "KV heads"]
    return [header] + [
        [name.replace("_", " "), *(plain(value) for value in size.model_dump().values())]
        for name, size in sizes.items()
    ]


def _methods(results: Results) -> Rows:
    methods = {cell.method_name: cell.method for cell in results.cells.values()}
    rows = []
    for name, method in methods.items():
        settings = method.model_dump() | {"method": method_label(name)}
        if not method.rank:
            settings |= dict.fromkeys(list(METHOD_COLUMNS)[1:7], None) | {"rewarmup_steps": None}
        rows.append([plain(settings[key]).replace("_", " ") for key in METHOD_COLUMNS])
    return [list(METHOD_COLUMNS.values()), *rows]


def _by_method(found: pd.DataFrame) -> Rows:
    """The audit's values: a row a measure; for each size the released value and a column a method, means over seeds."""
    found = found.assign(label=found.cell.map(lambda cell: cell_label(cell, seed=False)))
    found = found.assign(size=found.label.str.split(", ").str[0])
    columns = {}
    for size, own in found.groupby("size", sort=False):
        by_measure = own.groupby("measure", sort=False)
        columns[f"{size}, published"] = by_measure.published.first()
        for label, cells in own.groupby("label", sort=False):
            columns[label] = cells.groupby("measure", sort=False).value.mean()
    table = pd.DataFrame(columns).loc[found.measure.unique()]
    header = ["", *table.columns]
    return [header] + [[str(name), *map(plain, row)] for name, row in zip(table.index, table.to_numpy(), strict=True)]


def _by_size(found: pd.DataFrame) -> Rows:
    """The audit of the released curves: a row a measure, a column a size, and the verdicts where they are the same."""
    rows = [["", *(str(size) for size in found["size"].unique()), "verdict"]]
    for (_, measure), own in found.groupby(["finding", "measure"], sort=False):
        rows.append([str(measure), *map(plain, own.value), "; ".join(own.verdict.unique())])
    return rows


def _one_seed(results: Results) -> Results:
    """The cells of the first seed alone: where seeds do not differ."""
    seed = next(iter(results.cells.values())).seed
    cells = {name: cell for name, cell in results.cells.items() if cell.seed == seed}
    return replace(results, cells=cells)


def _without(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    return table.drop(columns=names)


def _rows(table: pd.DataFrame) -> Rows:
    words = readable(table)
    return [list(words.columns), *words.to_numpy().tolist()]
