"""The paper: one file of numbers, tables and sentences (values.json), and the Typst source that reads it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import typst

from ..analysis.adapter_pattern import adapter_pattern
from ..analysis.audit import audit
from ..analysis.claims import claims
from ..analysis.differences import differences, in_columns, trend
from ..analysis.effects import Effect
from ..analysis.naming import shows_published
from ..analysis.published import Published
from ..analysis.results import Runs
from ..analysis.significance import published_test
from ..config import Report
from ..storage.files import write_json, write_whole
from . import sentences
from .captions import captions, published_captions
from .experiments import SEARCH
from .numbers import method_label, plain, readable, size_and_method
from .rules import Rows, rules
from .tables import final_results, mark, models, significance, yardsticks

INITIALISATIONS = {
    "pytorch": "PyTorch's default initialisation",
    "normal": "normal initialisation with deviation 0.02",
}
_SEARCH = f"experiment_{SEARCH}"
UNSHOWN = ["mean_text_perplexity"]  # of the final results; the table in results/ has it


def typeset(source: Path, contents: dict[str, Any], folder: Path, output: Path) -> None:
    """Write ``contents`` to ``folder``/paper/values.json, and compile ``source``, which reads them and the figures."""
    write_json(folder / "paper" / "values.json", contents)
    place = folder.absolute()
    inputs = {"results": place.as_posix()}
    # Where the workflow is a module, source and results have no nearer folder in common than the root of the disk.
    pdf: bytes = typst.compile(str(source), root=place.anchor, sys_inputs=inputs)
    write_whole(output, lambda path: path.write_bytes(pdf))


def values(runs: Runs, settings: Report, experiments: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """The contents of the paper on our runs: its numbers, tables and data-dependent sentences.

    ``experiments`` are the sections on sweeps and the search (report.experiments).
    """
    final, tests, audited, patterns = (make(runs) for make in (final_results, significance, audit, adapter_pattern))
    published, published_audit = Published(), audit(Published())
    manifests = [runs.manifest(cell) for cell in runs.cells.values()]
    comparable = ~(tests.cell.isin(list(runs.diverged)) | tests.against.isin(list(runs.diverged)))
    return {
        "title": settings.title,
        "introduction": settings.introduction or "",
        "study": _study(runs),
        "sizes": runs.sizes,
        "captions": captions(runs.cells, shows_published(settings, runs.cells), runs.suite)["figures"]
        | {section["name"]: section["caption"] for section in experiments},
        "experiments": list(experiments),
        "found": next((section["sentences"] for section in experiments if section["name"] != _SEARCH), []),
        "shapes": _shapes(runs),
        "methods": rules({cell.method_name: cell for cell in runs.cells.values()}),
        "models": _rows(mark(models(_one_seed(runs)), runs.diverged)),
        "final": _rows(
            over_seeds(runs, final) if _has_seeds(runs) else mark(final.drop(columns=UNSHOWN), runs.diverged)
        ),
        "yardsticks": _rows(_beside_counts(runs)),
        "significance": [] if _has_seeds(runs) else _tests(tests, runs.diverged),
        "margin": f"{runs.margin:g}",
        "differences": _rows(differences(runs).dropna(subset="difference_low")),
        "trend": _rows(trend(runs).dropna(subset="slope")),
        "published": _rows(final_results(published)),
        "audit": _by_size_and_method(audited, runs.diverged),
        "audited": sentences.verdicts(audited),
        "claims": sentences.claimed(claims(runs)),
        "published_audit": _by_size(published_audit),
        "abstract": sentences.abstract(runs, audited, published_audit),
        "headline": [*sentences.answer(runs), *sentences.diverged(runs)],
        "results": [*sentences.diverged(runs), *sentences.comparisons(final, tests[comparable])],
        "spectra": sentences.spectra(runs),
        "like": sentences.like_for_like(runs),
        "patterns": sentences.patterns(patterns, audited),
        "scale": sentences.scale(runs),
        "limits": sentences.limits(runs),
        "run": [*sentences.places(manifests), *sentences.versions(manifests)],
    }


def published_values(source: Published) -> dict[str, Any]:
    """The contents of the paper on the published values."""
    audited = audit(source)
    return {
        "sizes": source.sizes,
        "captions": published_captions()["figures"],
        "models": _rows(models(source)),
        "final": _rows(final_results(source)),
        "significance": _rows(significance(source)),
        "tests": sentences.published_tests({size: published_test(size) for size in source.sizes}),
        "published_audit": _by_size(audited),
        "abstract": sentences.published(audited),
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
        "clipping": _clipping(runs),
        "suite": runs.suite,
        "initialisation": INITIALISATIONS[cell.model.initialization],
    }


def _clipping(runs: Runs) -> str:
    """Say in words at which norms the cells clip their gradients, if any does."""
    norms = dict.fromkeys(cell.train.gradient_clipping for cell in runs.cells.values())
    clipped = " and ".join(f"{norm:g}" for norm in norms if norm is not None)
    some = " in some of the methods" if None in norms else ""
    return f"gradients clipped at a norm of {clipped}{some}" if clipped else "no gradient clipping"


def _shapes(runs: Runs) -> Rows:
    sizes = {cell.size_name: cell.size for cell in runs.cells.values()}
    header = ["size", "width", "FFN", "layers", "heads", "KV heads"]
    return [header] + [
        [name.replace("_", " "), *(plain(value) for value in size.model_dump().values())]
        for name, size in sizes.items()
    ]


def _by_size_and_method(audited: pd.DataFrame, diverged: Mapping[str, int]) -> list[dict[str, Any]]:
    """The audit of our runs, a table a size: a row for each measure; columns for the published value and each method.

    The values are means over seeds. A dagger marks a method with a cell that diverged.
    """
    sizes = audited.groupby(audited.cell.str.split("-").str[0], sort=False)
    return [{"size": str(size).replace("_", " "), "rows": _by_method(rows, diverged)} for size, rows in sizes]


def _by_method(audited: pd.DataFrame, diverged: Mapping[str, int]) -> Rows:
    columns = {"published": audited.groupby("key").published.first()}
    for method, cells in audited.groupby(audited.cell.str.split("-").str[1], sort=False):
        dagger = " †" * bool(cells.cell.isin(list(diverged)).any())
        columns[method_label(str(method)) + dagger] = cells.groupby("key").value.mean()
    measures = audited.drop_duplicates("key").set_index("key").measure
    table = pd.DataFrame(columns).reindex(measures.index)
    rows = [[measures[key], *map(plain, row)] for key, row in zip(table.index, table.to_numpy(), strict=True)]
    return [["", *table.columns], *rows]


def _by_size(audited: pd.DataFrame) -> Rows:
    """The audit of the published curves: a row for each measure, columns for the sizes and for the verdicts."""
    rows = [["", *(str(size) for size in audited["size"].unique()), "verdict"]]
    for _, sizes in audited.groupby("key", sort=False):
        rows.append([sizes.measure.iloc[0], *map(plain, sizes.value), "; ".join(sizes.verdict.unique())])
    return rows


def _one_seed(runs: Runs) -> Runs:
    """The cells of the first seed, for numbers that do not depend on the seed."""
    seed = next(iter(runs.cells.values())).seed
    cells = {name: cell for name, cell in runs.cells.items() if cell.seed == seed}
    return replace(runs, cells=cells)


def _has_seeds(runs: Runs) -> bool:
    return len({cell.seed for cell in runs.cells.values()}) > 1


def over_seeds(runs: Runs, final: pd.DataFrame) -> pd.DataFrame:
    """The results of `final_results` as means over seeds with 95 % intervals: a row a size and method.

    The interval of the held-out loss holds the chance of documents, too; the others are Student's. Cells that diverged
    are counted, and are in no mean.
    """
    rows, diverged = [], runs.diverged
    for (size, method), cells in final.groupby(final.cell.map(size_and_method), sort=False):
        whole = cells[~cells.cell.isin(list(diverged))]
        row: dict[str, object] = {
            "size": size,
            "method": method,
            "seeds": len(whole),
            "diverged": len(cells) - len(whole),
        }
        row |= in_columns("train_loss", Effect.over_seeds(whole.train_loss))
        row |= in_columns("held_out_loss", runs.losses.mean(whole.cell))
        for measure in ("perplexity", "accuracy"):
            row |= in_columns(measure, Effect.over_seeds(whole[measure]))
        rows.append(row | {"tokens_per_parameter": whole.tokens_per_parameter.mean()})
    return pd.DataFrame(rows) if diverged else pd.DataFrame(rows).drop(columns="diverged")


def _shown(final: pd.DataFrame, runs: Runs) -> pd.DataFrame:
    return mark(final.drop(columns=UNSHOWN), runs.diverged)


def _beside_counts(runs: Runs) -> pd.DataFrame:
    """The table of yardsticks, without columns of one value: all models are far below a unigram."""
    table = yardsticks(runs).drop(columns="over_unigram")
    alike = [name for name in ("seeds", "diverged") if table[name].dropna().isin([0, 1]).all()]
    return table.drop(columns=[name for name in alike if table[name].nunique() < 2])


def _tests(tests: pd.DataFrame, diverged: Mapping[str, int]) -> Rows:
    shown = tests[["cell", "difference", "difference_low", "difference_high", "z", "p", "mcnemar_p"]]
    return _rows(mark(shown, diverged))


def _rows(table: pd.DataFrame) -> Rows:
    words = readable(table)
    return [list(words.columns), *words.to_numpy().tolist()]
