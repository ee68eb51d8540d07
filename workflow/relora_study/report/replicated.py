"""Each published number beside ours, with the tolerance that would call it replicated, or why it is not comparable."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ..config import Cell
from .cost import devices, training_seconds
from .load import Results, last_losses, published_readings
from .pattern import nearest_size
from .published import published_values
from .shapes import STEPS, WIDTHS, has_papers_shape

# Relative tolerances. Losses and accuracies are those of another seed; spectra at step 0 depend on shape and first
# weights alone. Hours depend on the device.
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


def published_vs_replicated(results: Results) -> pd.DataFrame:
    """Columns cell, published (size and method), quantity, published_value, ours, difference, tolerance, verdict."""
    rows = [row for cell in results.cells.values() for row in _rows(results, cell)]
    columns = ["cell", "published", "quantity", "published_value", "ours", "difference", "tolerance", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def _rows(results: Results, cell: Cell) -> Iterator[dict[str, str | float]]:
    size = _published_size(results, cell)
    method = "relora" if cell.method.rank else "full"
    ours = _measured(results, cell)
    for quantity, value in published_values(size, method).items():
        own, name = ours.get(str(quantity), np.nan), str(quantity)
        tolerance = TOLERANCES[name.split("/")[1] if "/" in name else name] * abs(value)
        why = _incomparable(results, cell, size, name)
        close = "replicated" if abs(own - value) <= tolerance else "differs"
        yield {
            "cell": cell.name,
            "published": f"{size} {method}",
            "quantity": name,
            "published_value": value,
            "ours": own,
            "difference": own - value,
            "tolerance": tolerance,
            "verdict": f"not comparable: {why}" if why else close if np.isfinite(own) else "not measured",
        }


def _published_size(results: Results, cell: Cell) -> str:
    """By name; else of the size's adapters whose rank is as large a share of the width; else of the nearest width."""
    if cell.size_name in WIDTHS:
        return cell.size_name
    adapted = [other for other in results.cells.values() if other.size_name == cell.size_name and other.method.rank]
    return nearest_size(adapted[0]) if adapted else min(WIDTHS, key=lambda size: abs(WIDTHS[size] - cell.size.d_model))


def _measured(results: Results, cell: Cell) -> dict[str, float]:
    """Our values under the names of :func:`published_values`; the published last step is our last."""
    evaluation = results.table("evaluation.csv")
    final = (
        evaluation[evaluation.cell == cell.name].sort_values("step").groupby(["suite", "item", "metric"]).value.last()
    )
    manifest = results.manifest(cell)
    found = {
        "train_loss": last_losses(results).mean()[cell.name],
        "paloma_perplexity": final["perplexity", "overall", "mean_text_perplexity"],
        "blimp_accuracy": final["minimal_pairs", "overall", "accuracy"],
        "gpu_hours": devices(manifest) * training_seconds(results, cell) / 3600,
        "parameters": manifest["parameters"],
        "trainable": manifest["trainable_parameters"],
    }
    for quantity in ("weights", "updates"):
        for metric in ("per", "condition_number"):
            rows = published_readings(results, quantity, metric)
            means = rows[rows.cell == cell.name].groupby(["component", "step"]).value.mean()
            for (component, step), value in means.items():
                label = STEPS if step == means.index.get_level_values("step").max() else step
                found[f"{quantity}/{metric}/{component}/{label}"] = value
    return found


def _incomparable(results: Results, cell: Cell, size: str, quantity: str) -> str:
    """Why a published number and ours measure different things; empty where they are comparable."""
    same_layers = cell.size.d_model == WIDTHS[size] and cell.size.num_attention_heads == 12
    if quantity.startswith("weights/") and quantity.endswith("/0"):
        return "" if same_layers and cell.model.initialization == "pytorch" else "other shapes"
    if quantity in ("parameters", "trainable"):
        return "" if has_papers_shape(cell) else "other shapes"
    if quantity == "gpu_hours":
        return "other devices"
    if not has_papers_shape(cell):
        return "other shapes, data and steps"
    if quantity == "blimp_accuracy" and results.suite != "BLiMP":
        return "other pairs"
    if quantity == "paloma_perplexity" and results.texts != "Paloma":
        return "other texts"
    return "" if cell.train.steps >= STEPS else "fewer steps"
