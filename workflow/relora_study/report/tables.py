"""The tables, one function each; ``TABLES`` holds them by name."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from ..files import write_csv, write_text
from .audit import audit
from .cost import devices, on_gpu, training_seconds
from .load import Results, last_losses, measured
from .numbers import readable
from .pattern import adapter_pattern
from .published import BLIMP_PAIRS, final_values, published_audit
from .replicated import published_vs_replicated
from .significance import accuracy_interval, chance_p, compare, perplexity_interval, published_test

SIGNIFICANCE = ["cell", "against", "difference", "difference_low", "difference_high", "z", "p", "mcnemar_p"]
SIGNIFICANCE += ["paradigms_better", "paradigms_worse", "chance_p"]


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
    """Losses, perplexities and minimal-pair accuracy at the last step, with 95 % intervals where there is a sample."""
    last = last_losses(results)
    texts = {name: perplexity_interval(results.scored_texts(cell)) for name, cell in results.cells.items()}
    columns = {
        "train_loss": last.mean(),
        "train_loss_low": last.mean() - 1.96 * last.sem(),
        "train_loss_high": last.mean() + 1.96 * last.sem(),
        "held_out_loss": _final(results, "held_out", "fixed_batch", "loss"),
        "perplexity": _final(results, "perplexity", "macro_average", "token_perplexity"),
        "perplexity_low": pd.Series({name: low for name, (low, _) in texts.items()}),
        "perplexity_high": pd.Series({name: high for name, (_, high) in texts.items()}),
        "mean_text_perplexity": _final(results, "perplexity", "overall", "mean_text_perplexity"),
        "bits_per_byte": _final(results, "perplexity", "macro_average", "bits_per_byte"),
        "accuracy": _final(results, "minimal_pairs", "overall", "accuracy"),
        "accuracy_low": _final(results, "minimal_pairs", "overall", "accuracy_low"),
        "accuracy_high": _final(results, "minimal_pairs", "overall", "accuracy_high"),
    }
    return pd.DataFrame(columns).loc[list(results.cells)].rename_axis("cell").reset_index()


def cost(results: Results) -> pd.DataFrame:
    """Time and memory of training; the one table that differs between runs."""
    rows = []
    for cell in results.cells.values():
        manifest, seconds = results.manifest(cell), training_seconds(results, cell)
        many, kind = devices(manifest), "GPU" if on_gpu(manifest) else "CPU core"
        rows.append(
            {
                "cell": cell.name,
                "minutes": seconds / 60,
                "device_hours": many * seconds / 3600,
                "tokens_per_second": manifest["tokens"] / seconds,
                "peak_MiB": manifest["peak_memory_bytes"] / 2**20,
                "devices": f"{many} {kind}{'s' * (many > 1)}",
            }
        )
    return pd.DataFrame(rows)


def significance(results: Results) -> pd.DataFrame:
    """Minimal pairs: is full rank better than each adapter method of the same size and seed? And is either chance?"""
    rows = []
    for name, cell in results.cells.items():
        if full := results.full_rank_of(cell):
            theirs, own = results.judged_pairs(full), results.judged_pairs(cell)
            chance = chance_p(int((own.good > own.bad).sum()), len(own))
            rows.append({"cell": name, "against": full.name} | compare(theirs, own) | {"chance_p": chance})
    return pd.DataFrame(rows, columns=SIGNIFICANCE)


def write_table(table: pd.DataFrame, output: Path) -> None:
    """Write ``table`` as CSV (full precision) and, for readers, as Markdown and LaTeX (rounded, in words)."""
    write_csv(output.with_suffix(".csv"), table)
    words = readable(table)
    aligned = [
        "right" if pd.api.types.is_numeric_dtype(table[name]) else "left" for name in table if _shown(name, table)
    ]
    write_text(
        output.with_suffix(".md"), words.to_markdown(index=False, disable_numparse=True, colalign=aligned) + "\n"
    )
    columns = "".join(side[0] for side in aligned)
    write_text(output.with_suffix(".tex"), words.to_latex(index=False, escape=True, column_format=columns))


def _shown(name: str, table: pd.DataFrame) -> bool:
    """Whether a column stands by itself, and is not the end of another's interval."""
    return name.removesuffix("_low").removesuffix("_high") == name or name.rsplit("_", 1)[0] not in table


def _released(columns: list[str]) -> pd.DataFrame:
    return final_values()[columns].reset_index()


def released_models() -> pd.DataFrame:
    """Parameters of the paper's models, and those that train."""
    table = _released(["parameters", "trainable"])
    return table.assign(share=table.trainable / table.parameters)


def released_results() -> pd.DataFrame:
    """The paper's results at step 20,000; Wilson's interval over BLiMP's pairs."""
    table = _released(["train_loss", "paloma_perplexity", "blimp_accuracy"])
    low, high = accuracy_interval(table.blimp_accuracy * BLIMP_PAIRS, BLIMP_PAIRS)
    return table.assign(blimp_accuracy_low=low, blimp_accuracy_high=high)


def released_cost() -> pd.DataFrame:
    """A100 GPU-hours to step 20,000."""
    return _released(["gpu_hours"])


def released_significance() -> pd.DataFrame:
    """Is the paper's full rank better than its ReLoRA on BLiMP?"""
    return pd.DataFrame([{"size": size} | published_test(size) for size in final_values().index.unique("size")])


TABLES: dict[str, Callable[[Results], pd.DataFrame]] = {
    function.__name__: function
    for function in (
        models,
        hyperparameters,
        final_results,
        cost,
        significance,
        audit,
        adapter_pattern,
        published_vs_replicated,
    )
}
RELEASED_TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    "models": released_models,
    "final_results": released_results,
    "cost": released_cost,
    "significance": released_significance,
    "audit": published_audit,
}
