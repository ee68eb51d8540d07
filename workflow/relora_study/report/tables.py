"""The tables, one function each; ``TABLES`` holds them by name."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from ..files import write_csv, write_text
from .audit import audit
from .load import Results, measured, published_readings
from .pattern import adapter_pattern
from .replicated import published_vs_replicated
from .significance import chance_p, compare

LAST_STEPS = 20  # of the training loss that are averaged: one batch is noisy


def models(results: Results) -> pd.DataFrame:
    """Parameters in all and those that train."""
    rows = []
    for cell in results.cells.values():
        manifest = results.manifest(cell)
        total, trainable = manifest["parameters"], manifest["trainable_parameters"]
        rows.append({"cell": cell.name, "parameters": total, "trainable": trainable, "share": trainable / total})
    return pd.DataFrame(rows)


def hyperparameters(results: Results) -> pd.DataFrame:
    """Every setting of every cell, a row a setting."""
    columns = {
        name: pd.json_normalize(cell.model_dump(include={"model", "size", "method", "train"})).iloc[0].astype(str)
        for name, cell in results.cells.items()
    }
    return pd.DataFrame(columns).rename_axis("setting").reset_index()


def _final(results: Results, suite: str, item: str, metric: str) -> pd.Series:
    rows = measured(results, suite, item, metric).sort_values("step")
    return rows.groupby("cell").value.last()


def final_results(results: Results) -> pd.DataFrame:
    """Losses, perplexities and minimal-pair accuracy (Wilson's 95 % interval) at the last step."""
    log = results.table("log.csv")
    columns = {
        "train_loss": log.groupby("cell").loss.apply(lambda losses: losses.tail(LAST_STEPS).mean()),
        "held_out_loss": _final(results, "held_out", "fixed_batch", "loss"),
        "perplexity": _final(results, "perplexity", "macro_average", "token_perplexity"),
        "mean_text_perplexity": _final(results, "perplexity", "macro_average", "mean_text_perplexity"),
        "bits_per_byte": _final(results, "perplexity", "macro_average", "bits_per_byte"),
        "minimal_pairs": _final(results, "minimal_pairs", "overall", "accuracy"),
        "minimal_pairs_low": _final(results, "minimal_pairs", "overall", "accuracy_low"),
        "minimal_pairs_high": _final(results, "minimal_pairs", "overall", "accuracy_high"),
    }
    return pd.DataFrame(columns).loc[list(results.cells)].rename_axis("cell").reset_index()


def cost(results: Results) -> pd.DataFrame:
    """Time and memory of training; the one table that differs between runs."""
    rows = []
    for cell in results.cells.values():
        manifest, timing = results.manifest(cell), pd.read_csv(results.folder / cell.name / "timing.csv")
        seconds = timing.seconds.sum()
        speed, memory = manifest["tokens"] / seconds, manifest["peak_memory_bytes"] / 2**20
        place = f"{manifest['device']} x {manifest['threads']}"
        rows.append(
            {"cell": cell.name, "seconds": seconds, "tokens_per_second": speed, "peak_MiB": memory, "device": place}
        )
    return pd.DataFrame(rows)


def significance(results: Results) -> pd.DataFrame:
    """Minimal pairs: is full rank better than each adapter method of the same size and seed? And is either chance?"""
    rows = []
    for name, cell in results.cells.items():
        full = f"{cell.size_name}-full-s{cell.seed}"
        if name != full and full in results.cells:
            theirs, own = results.judged_pairs(results.cells[full]), results.judged_pairs(cell)
            chance = chance_p(int((own.good > own.bad).sum()), len(own))
            rows.append({"cell": name, "against": full} | compare(theirs, own) | {"chance_p": chance})
    return pd.DataFrame(rows)


def dead_first_cycle(results: Results) -> pd.DataFrame:
    """Do the adapters learn before the first reset? Their largest gradient norm, and how far PER of W2 moves."""
    log, per = results.table("log.csv"), published_readings(results, "weights", "per")
    rows = []
    for name, cell in results.cells.items():
        if not cell.method.rank or cell.method.reset_period is None:
            continue
        own = log[log.cell == name]
        first = own.step <= cell.method.reset_period + cell.method.reset_offset
        norms = own.adapter_gradient_norm
        mean = per[(per.cell == name) & (per.component == "w2")].groupby("step").value.mean()
        rows.append(
            {
                "cell": name,
                "largest_gradient_first_cycle": norms[first].max(),
                "largest_gradient_later": norms[~first].max(),
                "PER_start": mean.iloc[0],
                "PER_end": mean.iloc[-1],
                "dead": bool(norms[first].max() == 0),
            }
        )
    return pd.DataFrame(rows)


def write_table(table: pd.DataFrame, output: Path) -> None:
    """Write ``table`` as CSV (full precision), Markdown and LaTeX (four digits)."""
    write_csv(output.with_suffix(".csv"), table)
    write_text(output.with_suffix(".md"), table.to_markdown(index=False, floatfmt=".4g") + "\n")
    latex = table.to_latex(index=False, float_format="%.4g", escape=True)
    write_text(output.with_suffix(".tex"), latex)


TABLES: dict[str, Callable[[Results], pd.DataFrame]] = {
    function.__name__: function
    for function in (
        models,
        hyperparameters,
        final_results,
        cost,
        significance,
        dead_first_cycle,
        audit,
        adapter_pattern,
        published_vs_replicated,
    )
}
