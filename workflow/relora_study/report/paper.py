"""The paper: its numbers and its data-dependent sentences go to one file, which the Typst source reads."""

from pathlib import Path
from typing import Any

import pandas as pd
import typst

from ..files import write_json, write_whole
from .audit import audit
from .load import Results, regular_readings
from .pattern import adapter_pattern
from .published import published_audit
from .tables import dead_first_cycle, final_results, models, significance

PUBLISHED = Path(__file__).parents[3] / "resources" / "published" / "final.csv"


def typeset(source: Path, results: Results, folder: Path, title: str, output: Path) -> None:
    """Compile ``source``, which finds figures, tables and ``paper/values.json`` below the results' ``folder``."""
    write_json(folder / "paper" / "values.json", values(results, title))
    root = Path.cwd()
    write_whole(
        output,
        lambda path: path.write_bytes(
            typst.compile(str(source), root=str(root), sys_inputs={"results": f"/{folder.as_posix()}"})
        ),
    )


def values(results: Results, title: str) -> dict[str, Any]:
    """Every number, table and sentence of the paper that depends on the data."""
    final, dead, tests = final_results(results), dead_first_cycle(results), significance(results)
    cell = next(iter(results.cells.values()))
    shown = ["cell", "train_loss", "held_out_loss", "perplexity", "bits_per_byte", "minimal_pairs"]
    return {
        "title": title,
        "cells": len(results.cells),
        "steps": cell.train.steps,
        "tokens": f"{cell.train.steps * cell.train.batch_size * cell.model.context_length:,}",
        "context_length": cell.model.context_length,
        "vocab_size": cell.model.vocab_size,
        "seeds": len({cell.seed for cell in results.cells.values()}),
        "shapes": _shapes(results),
        "models": _rows(models(results)),
        "final": _rows(final[shown]),
        "published": _rows(pd.read_csv(PUBLISHED, comment="#")),
        "significance": _rows(tests),
        "dead": _rows(dead),
        "audit": _rows(_by_cell(audit(results))),
        "published_audit": _rows(published_audit()),
        "patterns": _patterns(adapter_pattern(results)),
        "findings": [*_comparisons(results, final, tests), *_cycles(dead), *_overlaps(results)],
    }


def _by_cell(found: pd.DataFrame) -> pd.DataFrame:
    """The audit's values, a row a measure and a column a size and method, in their order; means over seeds."""
    found = found.assign(cell=found.cell.str.replace(r"-s\d+$", "", regex=True))
    table = found.pivot_table(index="measure", columns="cell", values="value", dropna=False)
    return table.loc[found.measure.unique(), found.cell.unique()].reset_index()


def _shapes(results: Results) -> list[list[str]]:
    sizes = {cell.size_name: cell.size for cell in results.cells.values()}
    header = ["size", "width", "FFN", "layers", "heads", "KV heads"]
    return [header] + [[name, *(str(value) for value in size.model_dump().values())] for name, size in sizes.items()]


def _rows(table: pd.DataFrame) -> list[list[str]]:
    return [list(table.columns.str.replace("_", " "))] + [[_text(value) for value in row] for row in table.to_numpy()]


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) and value != int(value) else str(value)


def _comparisons(results: Results, final: pd.DataFrame, tests: pd.DataFrame) -> list[str]:
    """A sentence for each adapter cell: what the numbers say of it against full rank at the same size and seed."""
    by_cell, sentences = final.set_index("cell"), []
    for test in tests.itertuples():
        here, full = by_cell.loc[test.cell], by_cell.loc[test.against]
        gap = here.held_out_loss - full.held_out_loss
        side = "above" if gap > 0 else "below"
        clear = "is" if test.p < 0.05 else "is not"
        sentences.append(
            f"{test.cell}: held-out loss {here.held_out_loss:.3f}, {abs(gap):.3f} nats {side} full rank; minimal pairs"
            f" {here.minimal_pairs:.3f} against {full.minimal_pairs:.3f}. That full rank is better on the pairs {clear}"
            f" shown at the 5 % level (one-sided p = {test.p:.2g})."
        )
    return sentences


def _cycles(dead: pd.DataFrame) -> list[str]:
    return [
        f"{row.cell}: the adapters' gradient norm is exactly zero until the first reset, so its first cycle is dead."
        if row.dead
        else f"{row.cell}: the adapters receive gradients in the first cycle (norm up to"
        f" {row.largest_gradient_first_cycle:.2g})."
        for row in dead.itertuples()
    ]


def _overlaps(results: Results) -> list[str]:
    """A sentence for each cell: how much of one cycle's update of W2 lies in the directions of the cycle before."""
    rows = regular_readings(results)
    rows = rows[(rows.quantity == "net_update") & (rows.component == "w2") & (rows.metric == "overlap_right")]
    means = rows.groupby("cell").value.mean()
    return [
        f"{name}: on average {means[name]:.0%} of the leading input directions of W2's update in one cycle are those of"
        " the cycle before."
        for name in results.cells
        if name in means
    ]


def _patterns(table: pd.DataFrame) -> list[str]:
    """Which method's adapters are nearest to the published ones: a sentence for each published size."""
    sentences = []
    for size, own in table.groupby("published_size", sort=False):
        by_method = own.groupby("method", sort=False)
        each = "; ".join(
            f"{method}: distance {_spread(part.distance)}, correlation {_spread(part.correlation)}, first cycle"
            f" {_spread(part['first'])}, growth {_spread(part.growth)}-fold"
            for method, part in by_method
        )
        means, first = by_method[["distance", "correlation", "first"]].mean(), own.published_first.iloc[0]
        growth, off = own.published_growth.iloc[0], (means["first"] - first).abs()
        sentences.append(
            f"Against the released curve of {size} (first cycle {first:.2f} of the ceiling, V grows {growth:.2g}-fold):"
            f" {each}. Nearest in level over all cycles: {means.distance.idxmin()};"
            f" in shape: {means.correlation.fillna(-1).idxmax()}; in the first cycle: {off.idxmin()}."
        )
    return sentences


def _spread(values: pd.Series) -> str:
    low, high = f"{values.min():.2f}", f"{values.max():.2f}"
    return low if low == high else f"{low} to {high}"
