"""The tables, a function for each; ``TABLES`` and ``PUBLISHED_TABLES`` list them by name."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from ..analysis import audit as audits
from ..analysis.adapter_pattern import adapter_pattern
from ..analysis.claims import claims
from ..analysis.comparison import published_vs_replicated
from ..analysis.differences import differences, gaps, in_columns, trend
from ..analysis.experiments import search_minutes
from ..analysis.intervals import perplexity_interval
from ..analysis.published import BLIMP_PAIRS, Published, final_values
from ..analysis.results import Runs, devices, last_losses, on_gpu
from ..analysis.significance import chance_p, compare, published_test
from ..analysis.source import Source, measured
from ..config.measuring import LEVEL
from ..storage.files import write_csv, write_text
from .escape import markdown
from .numbers import readable, shown_columns

SIGNIFICANCE = ["cell", "against", "difference", "difference_low", "difference_high", "z", "p", "mcnemar_p"]
SIGNIFICANCE += ["paradigms_better", "paradigms_worse", "chance_p"]


def models(source: Runs | Published) -> pd.DataFrame:
    """Parameters in all, and trainable parameters."""
    table = _parameters(source) if isinstance(source, Runs) else _reported(source, ["parameters", "trainable"])
    return table.assign(share=table.trainable / table.parameters)


def _parameters(runs: Runs) -> pd.DataFrame:
    keys = {"parameters": "parameters", "trainable_parameters": "trainable"}
    rows = pd.DataFrame(runs.manifests, index=list(runs.cells))[list(keys)]
    return rows.rename(columns=keys).rename_axis("cell").reset_index()


def _reported(source: Published, columns: list[str]) -> pd.DataFrame:
    """Columns of the paper's table, with a row for each size and method."""
    table = final_values()[columns].reset_index()
    return table[table["size"].isin(source.sizes)]


def hyperparameters(runs: Runs) -> pd.DataFrame:
    """Every setting of every cell, with a row for each setting."""
    columns = {
        name: pd.json_normalize(cell.model_dump(include={"model", "size", "method", "train"})).iloc[0].astype(str)
        for name, cell in runs.cells.items()
    }
    return pd.DataFrame(columns).rename_axis("setting").reset_index()


def _final(source: Source, suite: str, item: str, metric: str) -> pd.Series:
    rows = measured(source, suite, item, metric).sort_values("step")
    return rows.groupby("cell").value.last()


def final_results(source: Runs | Published) -> pd.DataFrame:
    """Losses, perplexities and minimal-pair accuracy at the last step; some have 95 % intervals (columns low, high)."""
    return _measured_results(source) if isinstance(source, Runs) else _reported_results(source)


def _measured_results(runs: Runs) -> pd.DataFrame:
    last = last_losses(runs)
    texts = {name: perplexity_interval(runs.scored_texts(cell)) for name, cell in runs.cells.items()}
    columns = {
        "train_loss": last.mean(),
        "train_loss_low": last.mean() - 1.96 * last.sem(),
        "train_loss_high": last.mean() + 1.96 * last.sem(),
        **_held_out(runs),
        "perplexity": _final(runs, "perplexity", "macro_average", "token_perplexity"),
        "perplexity_low": pd.Series({name: low for name, (low, _) in texts.items()}),
        "perplexity_high": pd.Series({name: high for name, (_, high) in texts.items()}),
        "mean_text_perplexity": _final(runs, "perplexity", "overall", "mean_text_perplexity"),
        "bits_per_byte": _final(runs, "perplexity", "macro_average", "bits_per_byte"),
        **{
            name: _final(runs, "minimal_pairs", "overall", name)
            for name in ("accuracy", "accuracy_low", "accuracy_high")
        },
        **{name: _final(runs, *runs.measures[name]) for name in runs.tasks},
    }
    return pd.DataFrame(columns).loc[list(runs.cells)].rename_axis("cell").reset_index()


def _held_out(runs: Runs) -> dict[str, pd.Series]:
    """The held-out loss of each cell with its interval over documents, and how many tokens a parameter trained it."""
    found = pd.DataFrame({name: in_columns("held_out_loss", runs.losses.mean([name])) for name in runs.cells}).T
    fed = pd.Series({name: runs.tokens_per_parameter(cell) for name, cell in runs.cells.items()})
    return {**{str(name): found[name] for name in found}, "tokens_per_parameter": fed}


def yardsticks(runs: Runs) -> pd.DataFrame:
    """Each method's mean held-out loss beside those of counted n-grams: what the loss is over each of theirs.

    The first rows are the n-grams themselves. Cells that diverged are in no mean, and ``diverged`` counts them.
    """
    counted = runs.yardsticks
    rows: list[dict[str, object]] = [
        {"size": "", "method": f"counted {name}", "held_out_loss": loss} for name, loss in counted.items()
    ]
    for (size, method), cells in runs.by_size_and_method.items():
        whole = [cell.name for cell in runs.whole(cells)]
        fed = runs.tokens_per_parameter(cells[0])
        row: dict[str, object] = {"size": size, "method": method, "tokens_per_parameter": fed, "seeds": len(cells)}
        row["diverged"] = len(cells) - len(whole)
        row |= in_columns("held_out_loss", found := runs.losses.mean(whole))
        rows.append(row | {f"over_{name}": found.mean - loss for name, loss in counted.items()})
    columns = ["size", "method", "tokens_per_parameter", "seeds", "diverged", "held_out_loss", "held_out_loss_low"]
    return pd.DataFrame(rows, columns=[*columns, "held_out_loss_high", *(f"over_{name}" for name in counted)])


def _reported_results(source: Published) -> pd.DataFrame:
    """The published results at step 20,000, with Wilson's interval over the pairs of BLiMP."""
    table = _reported(source, ["train_loss", "paloma_perplexity", "blimp_accuracy"])
    low, high = proportion_confint(table.blimp_accuracy * BLIMP_PAIRS, BLIMP_PAIRS, alpha=LEVEL, method="wilson")
    return table.assign(blimp_accuracy_low=low, blimp_accuracy_high=high)


def cost(source: Runs | Published) -> pd.DataFrame:
    """Time and memory of our training, or the published GPU-hours.

    Only this table, and the costs in the tables of sweeps, vary between reruns.

    Where a search chose settings, ``search_minutes`` is what all its candidates of the cell's size and method took.
    """
    if not isinstance(source, Runs):
        return _reported(source, ["gpu_hours"])
    rows = []
    searched = search_minutes(source.folder.parent, source.cells.values())
    for cell in source.cells.values():
        manifest, seconds = source.manifest(cell), source.training_seconds(cell)
        count, kind = devices(manifest), "GPU" if on_gpu(manifest) else "CPU core"
        rows.append(
            {
                "cell": cell.name,
                "minutes": seconds / 60,
                "search_minutes": searched[cell.name],
                "device_hours": count * seconds / 3600,
                "tokens_per_second": manifest["tokens"] / seconds,
                "peak_MiB": manifest["peak_memory_bytes"] / 2**20,
                "devices": f"{count} {kind}{'s' * (count > 1)}",
            }
        )
    table = pd.DataFrame(rows)
    return table if table.search_minutes.any() else table.drop(columns="search_minutes")


def significance(source: Runs | Published) -> pd.DataFrame:
    """Tests on minimal pairs: full rank against each cell of another method, and each such cell against chance."""
    if not isinstance(source, Runs):
        return pd.DataFrame([{"size": size} | published_test(size) for size in source.sizes])
    rows = []
    for name, cell in source.cells.items():
        if full := source.full_rank_of(cell):
            better, other = source.judged_pairs(full), source.judged_pairs(cell)
            rows.append({"cell": name, "against": full.name} | compare(better, other) | {"chance_p": chance_p(other)})
    return pd.DataFrame(rows, columns=SIGNIFICANCE)


def audit(source: Runs | Published) -> pd.DataFrame:
    """The audit, without the keys by which code finds its rows."""
    columns = audits.COLUMNS if isinstance(source, Runs) else audits.PUBLISHED_COLUMNS
    return audits.audit(source)[columns]


def mark(table: pd.DataFrame, diverged: Mapping[str, int]) -> pd.DataFrame:
    """``table`` with the step at which a cell diverged beside its name; ``table`` itself where no cell diverged."""
    if "setting" in table and (cells := [name for name in table if name in diverged]):
        row = {name: diverged.get(name, "") for name in table} | {"setting": "diverged_at"}
        return pd.concat([table, pd.DataFrame([row])], ignore_index=True) if cells else table
    marked = table
    for column, name in (("against", "against_diverged_at"), ("cell", "diverged_at")):
        if column in table and table[column].isin(list(diverged)).any():
            steps = table[column].map(diverged).astype("Int64")
            marked = marked.copy()
            marked.insert(marked.columns.get_loc(column) + 1, name, steps)
    return marked


def write_table(table: pd.DataFrame, output: Path) -> None:
    """Write ``table`` as CSV in full precision, and rounded and in words as Markdown and LaTeX."""
    write_csv(output.with_suffix(".csv"), table)
    words, numeric = readable(table), pd.api.types.is_numeric_dtype
    sides = ["right" if numeric(table[name]) else "left" for name in shown_columns(table)]
    rows = words.map(markdown).to_markdown(index=False, disable_numparse=True, colalign=sides)
    write_text(output.with_suffix(".md"), f"{rows}\n")
    columns = "".join(side[0] for side in sides)
    words = words.map(lambda text: text.replace("−", "-"))  # which not every LaTeX knows
    write_text(output.with_suffix(".tex"), words.to_latex(index=False, escape=True, column_format=columns))


TABLES: dict[str, Callable[[Runs], pd.DataFrame]] = {
    function.__name__: function
    for function in (
        final_results,
        yardsticks,
        differences,
        gaps,
        trend,
        significance,
        claims,
        audit,
        adapter_pattern,
        published_vs_replicated,
        models,
        cost,
        hyperparameters,
    )
}
PUBLISHED_TABLES: dict[str, Callable[[Published], pd.DataFrame]] = {
    function.__name__: function for function in (models, final_results, cost, significance, audit)
}
