"""Each published number beside ours: whether it is replicated within a tolerance, or why the two are not comparable."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ..config import Cell
from ..config.benchmark_names import BLIMP, PALOMA
from .adapter_pattern import nearest_size
from .published import published_values
from .published_recipe import STEPS, WIDTHS, has_papers_shape
from .results import Runs, devices, last_losses

# Relative tolerances. Losses and accuracies vary with the seed and hours with the device. Spectra at step 0 depend on
# the shape and the first weights alone.
TOLERANCES = {
    "train_loss": 0.01,
    "paloma_perplexity": 0.05,
    "blimp_accuracy": 0.03,
    "gpu_hours": 0.5,
    "parameters": 0.0,
    "trainable": 0.0,
    "per": 0.02,
    "condition_number": 0.1,
}


def published_vs_replicated(runs: Runs) -> pd.DataFrame:
    """Columns cell, published (size and method), quantity, published_value, ours, difference, tolerance, verdict."""
    ours = _measured(runs)
    published = {name: cell for name, cell in runs.cells.items() if cell.method.is_published_kind}
    rows = [row for name, cell in published.items() for row in _rows(runs, cell, ours[name])]
    columns = ["cell", "published", "quantity", "published_value", "ours", "difference", "tolerance", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def _rows(runs: Runs, cell: Cell, ours: dict[str, float]) -> Iterator[dict[str, str | float]]:
    size = _published_size(runs, cell)
    method = "relora" if cell.method.rank else "full"
    for quantity, value in published_values(size, method).items():
        name = str(quantity)
        replicated = ours.get(name, np.nan)
        tolerance = TOLERANCES[name.split("/")[1] if "/" in name else name] * abs(value)
        why = _incomparable(runs, cell, size, name)
        close = "replicated" if abs(replicated - value) <= tolerance else "differs"
        yield {
            "cell": cell.name,
            "published": f"{size} {method}",
            "quantity": name,
            "published_value": value,
            "ours": replicated,
            "difference": replicated - value,
            "tolerance": tolerance,
            "verdict": f"not comparable: {why}" if why else close if np.isfinite(replicated) else "not measured",
        }


def _published_size(runs: Runs, cell: Cell) -> str:
    """The paper's size of equal name, else of the nearest rank / width, else (no adapters) of the nearest width."""
    if cell.size_name in WIDTHS:
        return cell.size_name
    adapted = [other for other in runs.cells.values() if other.size_name == cell.size_name and other.method.rank]
    return nearest_size(adapted[0]) if adapted else min(WIDTHS, key=lambda size: abs(WIDTHS[size] - cell.size.d_model))


def _measured(runs: Runs) -> dict[str, dict[str, float]]:
    """Our values of each cell, named as in :func:`published_values`."""
    evaluation = runs.table("evaluation.csv").sort_values("step")
    final = evaluation.groupby(["cell", "suite", "item", "metric"]).value.last()
    losses, spectra = last_losses(runs).mean(), _spectra(runs)
    ours = {}
    for name, cell in runs.cells.items():
        manifest = runs.manifest(cell)
        ours[name] = spectra[name] | {
            "train_loss": losses[name],
            "paloma_perplexity": final[name, "perplexity", "overall", "mean_text_perplexity"],
            "blimp_accuracy": final[name, "minimal_pairs", "overall", "accuracy"],
            "gpu_hours": devices(manifest) * runs.training_seconds(cell) / 3600,
            "parameters": manifest["parameters"],
            "trainable": manifest["trainable_parameters"],
        }
    return ours


def _spectra(runs: Runs) -> dict[str, dict[str, float]]:
    """Spectra of each cell, means over layers, by the name quantity/metric/component/step.

    The last step of a quantity and metric, over its components, is named as the paper's last step.
    """
    rows = runs.labelled()
    rows = rows[rows.quantity.isin(["weights", "updates"]) & rows.metric.isin(["per", "condition_number"])]
    means = rows.groupby(["cell", "quantity", "metric", "component", "step"]).value.mean().reset_index()
    last = means.groupby(["cell", "quantity", "metric"]).step.transform("max")
    labels = means.step.where(means.step < last, STEPS).astype(str)
    names = means.quantity + "/" + means.metric + "/" + means.component + "/" + labels
    spectra: dict[str, dict[str, float]] = {name: {} for name in runs.cells}
    for cell, name, value in zip(means.cell, names, means.value, strict=True):
        spectra[cell][name] = value
    return spectra


def _incomparable(runs: Runs, cell: Cell, size: str, quantity: str) -> str:
    """The reason why a published number and ours are not comparable; empty where they are."""
    same_layers = cell.size.d_model == WIDTHS[size] and cell.size.num_attention_heads == 12
    if quantity.startswith("weights/") and quantity.endswith("/0"):
        return "" if same_layers and cell.model.initialization == "pytorch" else "other shapes"
    if quantity in ("parameters", "trainable"):
        return "" if has_papers_shape(cell) else "other shapes"
    if cell.name in runs.diverged:
        return f"diverged at step {runs.diverged[cell.name]}"
    if quantity == "gpu_hours":
        return "other devices"
    if not has_papers_shape(cell):
        return "other shapes, data and steps"
    if quantity == "blimp_accuracy" and runs.suite != BLIMP:
        return "other pairs"
    if quantity == "paloma_perplexity" and runs.texts != PALOMA:
        return "other texts"
    return "" if cell.train.steps >= STEPS else "fewer steps"
