"""The first page of the web report: cells, machine, versions, training time and the headline table."""

from typing import Any

import pandas as pd

from ..analysis.published import Published
from ..analysis.results import Runs
from ..analysis.training_time import devices, on_gpu
from .escape import rst
from .numbers import method_label, readable
from .sentences import diverged
from .tables import cost, final_results, mark

HEADLINE = ["cell", "train_loss", "perplexity", "accuracy"]


def page(source: Runs | Published) -> str:
    """The page of a study, or of the published values, in reStructuredText."""
    parts = _of_runs(source) if isinstance(source, Runs) else _of_published(source)
    return "\n\n".join(parts) + "\n"


def _of_runs(runs: Runs) -> list[str]:
    manifests = [runs.manifest(cell) for cell in runs.cells.values()]
    final, spent = final_results(runs), cost(runs)
    shown = [name for name in final if name.removesuffix("_low").removesuffix("_high") in HEADLINE]
    return [
        _heading("What was run"),
        _list([_cells(runs), _recipe(runs), f"Minimal pairs: {rst(runs.suite)}.", *diverged(runs)]),
        _heading("Where, and with which versions"),
        _list([rst(line) for line in (*places(manifests), *versions(manifests))]),
        _heading("How long it took"),
        _duration(spent, runs.hour_unit),
        _grid(readable(mark(spent[["cell", "minutes", "tokens_per_second", "peak_MiB"]], runs.diverged))),
        _heading("The headline"),
        "The last checkpoint of every cell, with 95 % intervals in brackets. Losses are in nats a token. The paper"
        " (Paper, in the menu) discusses these numbers and their limits.",
        _grid(readable(mark(final[shown], runs.diverged))),
    ]


def _of_published(source: Published) -> list[str]:
    return [
        _heading("The published values"),
        "Figures, tables and an audit of the published values. No model was trained for this page."
        f" The published runs took {cost(source).gpu_hours.sum():,.0f} A100 GPU-hours.",
        _heading("The headline"),
        _grid(readable(final_results(source))),
    ]


def _cells(runs: Runs) -> str:
    cells = runs.cells.values()
    sizes = ", ".join(size.replace("_", " ") for size in runs.sizes)
    methods = ", ".join(method_label(name) for name in dict.fromkeys(cell.method_name for cell in cells))
    seeds = ", ".join(map(str, sorted({cell.seed for cell in cells})))
    return f"{len(cells)} cells: sizes {sizes}; methods {methods}; seeds {seeds}."


def _recipe(runs: Runs) -> str:
    cell = next(iter(runs.cells.values()))
    tokens = cell.train.steps * cell.train.batch_size * cell.model.context_length
    return (
        f"Each cell trained for {cell.train.steps:,} optimizer steps of {cell.train.batch_size} sequences of"
        f" {cell.model.context_length:,} tokens: {tokens:,} tokens, at a peak rate of {runs.peak_rates()}."
    )


def places(manifests: list[dict[str, Any]]) -> list[str]:
    """Sentences on the devices that trained the cells, each once."""
    sentences = [
        f"Each cell trained on {devices(manifest)} {'GPU' if on_gpu(manifest) else 'CPU core'}"
        f"{'s' * (devices(manifest) > 1)} ({manifest.get('platform', 'a system that was not recorded')})."
        for manifest in manifests
    ]
    return list(dict.fromkeys(sentences))


def versions(manifests: list[dict[str, Any]]) -> list[str]:
    """Sentences on the versions of the software that trained the cells, each once."""
    lists = [
        ", ".join(f"{name} {version}" for name, version in sorted(manifest["versions"].items()))
        for manifest in manifests
    ]
    return [f"Versions: {versions}." for versions in dict.fromkeys(lists)]


def _duration(spent: pd.DataFrame, unit: str) -> str:
    hours, longest = spent.device_hours.sum(), spent.minutes.max()
    return f"Training took {hours:.2f} {unit} in all. The longest cell took {longest:.1f} minutes."


def _heading(text: str) -> str:
    return f"{text}\n{'-' * len(text)}"


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _grid(words: pd.DataFrame) -> str:
    """A table in the grid syntax of reStructuredText."""
    return str(words.to_markdown(index=False, tablefmt="grid", disable_numparse=True))
