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
from ..analysis.differences import differences, gap_effects, in_columns, trend
from ..analysis.effects import Effect
from ..analysis.published import Published
from ..analysis.published_recipe import shows_published
from ..analysis.results import Runs
from ..analysis.significance import published_test
from ..analysis.source import select
from ..config import Report
from ..storage.files import write_json, write_whole
from . import sentences
from .captions import captions, meanings, published_captions
from .experiments import SEARCH
from .numbers import MISSING, Rows, in_rows, in_words, method_label, plain
from .rules import rules
from .tables import final_results, mark, models, significance, yardsticks

INITIALISATIONS = {
    "pytorch": "PyTorch's default initialisation",
    "normal": "normal initialisation with deviation 0.02",
}
TESTS = ["cell", "difference", "difference_low", "difference_high", "z", "p", "mcnemar_p"]  # columns of significance
_SEARCH = f"experiment_{SEARCH}"


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
    audited, published_audit, seeded = audit(runs), audit(Published()), len(runs.seeds) > 1
    texts = captions(runs.cells, shows_published(settings, runs.cells), runs.suite)["figures"]
    found = sentences.findings_of_figures(runs, audited)
    return {
        "title": settings.title,
        "introduction": settings.introduction or "",
        "study": _study(runs),
        "captions": {name: f"{found.get(name, '')} {text}".strip() for name, text in texts.items()}
        | {section["name"]: section["caption"] for section in experiments},
        "experiments": list(experiments),
        "found": next((section["sentences"] for section in experiments if section["name"] != _SEARCH), []),
        "shapes": _shapes(runs),
        "methods": rules({cell.method_name: cell for cell in runs.cells.values()}),
        "meanings": [[method_label(name), text] for name, text in meanings(runs.methods).items()],
        "models": in_rows(mark(models(_one_seed(runs)), runs.diverged)),
        "final": in_rows(results(runs, final_results(runs))),
        "yardsticks": in_rows(_without_usual(yardsticks(runs).drop(columns="over_unigram"))),
        "significance": [] if seeded else in_rows(mark(significance(runs)[TESTS], runs.diverged)),
        "seeded": seeded,
        "margin": f"{runs.margin:g}",
        "differences": in_rows(_without_usual(differences(runs).dropna(subset="difference_low"))),
        "trend": in_rows(trend(runs).dropna(subset="slope")),
        "published": in_rows(final_results(Published())),
        "audit": _by_size_and_method(audited, runs.diverged),
        "verdicts": _verdicts(audited),
        "claims": _claims(claims(runs)),
        "published_audit": _by_size(published_audit),
        "abstract": sentences.abstract(runs, audited, published_audit),
        "results": [*sentences.answer(runs), *sentences.diverged(runs)],
        "spectra": in_rows(_ends(runs)),
        "like": in_rows(_like_for_like(runs)),
        "patterns": in_rows(_patterns(adapter_pattern(runs))),
        "scale": sentences.scale(runs),
        "limits": sentences.limits(runs),
        "run": [*sentences.places(runs.manifests), *sentences.versions(runs.manifests)],
    }


def published_values(source: Published) -> dict[str, Any]:
    """The contents of the paper on the published values."""
    audited = audit(source)
    return {
        "sizes": source.sizes,
        "captions": published_captions()["figures"],
        "models": in_rows(models(source)),
        "final": in_rows(final_results(source)),
        "significance": in_rows(significance(source)),
        "tests": sentences.published_tests({size: published_test(size) for size in source.sizes}),
        "published_audit": _by_size(audited),
        "abstract": sentences.published(audited),
    }


def _study(runs: Runs) -> dict[str, str]:
    cell = next(iter(runs.cells.values()))
    recipe = cell.train
    return {
        "cells": str(len(runs.cells)),
        "seeds": ", ".join(map(str, runs.seeds)),
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
    rows = [[in_words(name), *map(plain, size.model_dump().values())] for name, size in sizes.items()]
    return [["size", "width", "FFN", "layers", "heads", "KV heads"], *rows]


def _by_size_and_method(audited: pd.DataFrame, diverged: Mapping[str, int]) -> list[dict[str, Any]]:
    """The audit of our runs, a table a size: a row for each measure; columns for the published value and each method.

    The values are means over seeds. A dagger marks a method with a cell that diverged.
    """
    sizes = audited.groupby("size", sort=False)
    return [{"size": in_words(size), "rows": _by_method(rows, diverged)} for size, rows in sizes]


def _by_method(audited: pd.DataFrame, diverged: Mapping[str, int]) -> Rows:
    columns = {"published": audited.groupby("key").published.first()}
    for method, cells in audited.groupby("method", sort=False):
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
    first = runs.seeds[0]
    return replace(runs, cells={name: cell for name, cell in runs.cells.items() if cell.seed == first})


def results(runs: Runs, final: pd.DataFrame) -> pd.DataFrame:
    """Held-out loss, its difference to full rank, perplexity and accuracy: a row a size and method.

    Intervals of losses hold the chance of seeds and documents. Others are Student's over seeds, or those of
    `final_results` where there is one. Cells that diverged are counted, and are in no mean.
    """
    rows, effects, by_cell = [], gap_effects(runs), final.set_index("cell")
    for (size, method), cells in runs.by_size_and_method.items():
        whole = [cell.name for cell in runs.whole(cells)]
        found, gap = by_cell.loc[whole], effects.get((size, method), Effect.over_seeds([]))
        row: dict[str, object] = {"size": size, "method": method, "seeds": len(whole)}
        row["diverged"] = len(cells) - len(whole)
        row |= in_columns("held_out_loss", runs.losses.mean(whole)) | in_columns("over_full_rank", gap)
        for measure in ("perplexity", "accuracy"):
            ends = [measure, f"{measure}_low", f"{measure}_high"]
            one = len(whole) == 1
            row |= found[ends].iloc[0].to_dict() if one else in_columns(measure, Effect.over_seeds(found[measure]))
        rows.append(row | {"tokens_per_parameter": found.tokens_per_parameter.mean()})
    return _without_usual(pd.DataFrame(rows))


def _without_usual(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` without columns that count one seed and no divergence wherever they count."""
    usual = {"diverged": 0, "seeds": 1}
    return table.drop(columns=[name for name, count in usual.items() if (table[name].dropna() == count).all()])


def _verdicts(audited: pd.DataFrame) -> Rows:
    """What the audit finds: a row a measure, a column a method; where its cells differ, how many have each outcome."""
    if audited.empty:
        return []
    methods = list(audited.method.unique())
    rows = [["difference", "measure", *map(method_label, methods)]]
    for (finding, measure), by_measure in audited.groupby(["finding", "measure"], sort=False):
        found = [_outcomes(by_measure[by_measure.method == method].outcome) for method in methods]
        rows.append([str(finding), str(measure), *found])
    return rows


def _outcomes(outcomes: pd.Series) -> str:
    counts = outcomes.replace({"missing": MISSING, "other": "differs"}).str.replace("_", " ").value_counts(sort=False)
    return (
        next(iter(counts.index)) if len(counts) == 1 else ", ".join(f"{name} {many}" for name, many in counts.items())
    )


def _claims(ledger: pd.DataFrame) -> list[dict[str, Any]]:
    """The claims, each with where it stands, the published evidence, our measure, and a row of numbers a method."""
    keys, told = ["claim", "origin", "published_evidence", "measure"], []
    for key, rows in ledger.groupby(keys, sort=False):
        _, *numbers = in_rows(rows[["method", "value", "value_low", "value_high", "p_holm", "verdict"]])
        told.append(dict(zip(keys, key, strict=True)) | {"rows": numbers})
    return told


def _ends(runs: Runs) -> pd.DataFrame:
    """PER of W2 at step 0 and at the end of each method, a mean over layers and seeds: a row a size."""
    rows = select(runs.labelled(), "weights", "per")
    means = rows[rows.component == "w2"].groupby(["size", "method", "step"], sort=False).value.mean()
    table = []
    for size in runs.sizes:
        row: dict[str, object] = {"size": size, "at step 0": means[size].groupby("step").mean().iloc[0]}
        ends = {name: means[size, name].sort_index().iloc[-1] for name in means[size].index.unique("method")}
        table.append(row | {method_label(name): end for name, end in ends.items()})
    return pd.DataFrame(table)


def _like_for_like(runs: Runs) -> pd.DataFrame:
    """How far W2's updates in successive cycles overlap, and the rank of the net update: a row a size and method."""
    rows = runs.regular()
    rows = rows[rows.component == "w2"]
    keys = ["size", "method"]
    overlap = rows[(rows.quantity == "cycle_update") & (rows.metric == "overlap_right")].groupby(keys, sort=False)
    rank = rows[(rows.quantity == "cumulative_update") & (rows.metric == "effective_rank")]
    last = rank[rank.step == rank.groupby("cell").step.transform("max")].groupby(keys, sort=False).value.mean()
    table = pd.DataFrame({"overlap of input directions": overlap.value.mean(), "effective rank since step 0": last})
    return table.reset_index()


def _patterns(table: pd.DataFrame) -> pd.DataFrame:
    """The adapters' pattern as means over seeds, a row a published size and method, the published row first."""
    measures = ["distance", "correlation", "first", "growth"]
    parts = []
    for size, rows in table.groupby("published_size", sort=False):
        first = rows.iloc[0]
        theirs = {"method": "published", "distance": 0.0, "correlation": 1.0}
        theirs |= {"first": first.published_first, "growth": first.published_growth}
        means = rows.groupby("method", sort=False)[measures].mean().reset_index()
        parts.append(pd.concat([pd.DataFrame([theirs]), means]).assign(published_size=size))
    return pd.concat(parts)[["published_size", "method", *measures]] if parts else pd.DataFrame()
