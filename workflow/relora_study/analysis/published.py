"""The published values as a source: resources/published, read into the long tables of our runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from ..config.benchmark_names import BLIMP, blimp_phenomena
from ..config.schedule import learning_rate_ratio
from .published_recipe import (
    LABELS,
    LEARNING_RATE,
    METHODS,
    RESET_PERIOD,
    SIZES,
    STEPS,
    PublishedCell,
    published_cells,
)

FOLDER = Path(__file__).parents[3] / "resources" / "published"
COMPONENTS = {"swiglu_w2": "w2", "ov_circuit": "ov_authors", "attention_v": "v", "attention_o": "o"}
BLIMP_PAIRS = 67_000
# The authors count steps from 0 and log before the step: their step 0 is our step 1.
COUNTED_FROM = 1
BEFORE, AFTER = 50, 200  # steps before and after a reset at which the published loss is read


@dataclass(frozen=True)
class Published:
    """The published models of ``sizes`` and their values (analysis.source)."""

    sizes: list[str] = field(default_factory=lambda: list(SIZES))
    suite: str = BLIMP
    hour_unit: str = "A100 GPU-hours"

    @property
    def cells(self) -> Mapping[str, PublishedCell]:
        """The published models by name."""
        return published_cells(self.sizes)

    @property
    def diverged(self) -> Mapping[str, int]:
        """Empty: no published model diverged."""
        return {}

    @property
    def yardsticks(self) -> Mapping[str, float]:
        """Empty: nobody counted the published text."""
        return {}

    @property
    def methods(self) -> list[str]:
        """The labels of the two methods."""
        return list(LABELS.values())

    @property
    def full_rank_method(self) -> str:
        """The label of full rank."""
        return LABELS["full"]

    def table(self, file: str) -> pd.DataFrame:
        """The values as rows of ``file`` (log.csv, evaluation.csv, dynamics.csv) with cell, size, method, seed."""
        rows = published_table(file)
        return rows[rows["size"].isin(self.sizes)]

    def labelled(self) -> pd.DataFrame:
        """All readings: the published labels are the paper's."""
        return self.table("dynamics.csv")

    def regular(self) -> pd.DataFrame:
        """No rows: the authors read full rank and ReLoRA at different steps."""
        return self.table("dynamics.csv").iloc[:0]

    def hours(self, size: str, method: str, steps: pd.Series) -> pd.Series:
        """A100 GPU-hours at ``steps``: the published hours to step 20,000, spread evenly over the steps."""
        key = next(name for name, label in LABELS.items() if label == method)
        return steps * (float(final_values().gpu_hours[size, key]) / STEPS)


@cache
def published_table(file: str) -> pd.DataFrame:
    """The published values of both sizes as rows of ``file``."""
    rows = {"log.csv": _log, "evaluation.csv": _evaluation, "dynamics.csv": _dynamics}[file]()
    method = rows.method.map(LABELS)
    return rows.assign(method=method, cell=rows["size"] + "-" + method, seed=-1)


def _log() -> pd.DataFrame:
    curves = pd.read_csv(FOLDER / "training_curves.csv")
    losses = curves[curves.metric == "train_loss"].rename(columns={"value": "loss"})
    ratios = [
        learning_rate_ratio(METHODS[method], counter)
        for method, counter in zip(losses.method, losses.step, strict=True)
    ]
    losses = losses.assign(step=losses.step + COUNTED_FROM)
    return losses.assign(learning_rate=np.multiply(ratios, LEARNING_RATE))[
        ["size", "method", "step", "loss", "learning_rate"]
    ]


def _evaluation() -> pd.DataFrame:
    curves = pd.read_csv(FOLDER / "training_curves.csv")
    names = {
        "paloma_ppl": ("perplexity", "overall", "mean_text_perplexity"),
        "blimp_accuracy": ("minimal_pairs", "overall", "accuracy"),
    }
    columns = ["suite", "item", "metric"]
    parts = [
        curves[curves.metric == name].assign(**dict(zip(columns, kept, strict=True))) for name, kept in names.items()
    ]
    paradigms = published_paradigms().rename(columns={"accuracy": "value"})
    phenomena = paradigms.paradigm.map(blimp_phenomena())
    by_phenomenon = (
        paradigms.assign(item="phenomenon/" + phenomena).groupby(["size", "method", "step", "item"]).value.mean()
    )
    parts.append(by_phenomenon.reset_index().assign(suite="minimal_pairs", metric="accuracy"))
    return pd.concat(parts)[["size", "method", "step", *columns, "value"]]


def _dynamics() -> pd.DataFrame:
    curves = pd.read_csv(FOLDER / "dynamics_curves.csv").rename(columns={"mean_over_layers": "value"})
    return curves.assign(component=curves.component.map(COMPONENTS), layer=-1, reason="")


def published_paradigms() -> pd.DataFrame:
    """Accuracy on each of BLiMP's paradigms: columns size, method (full, relora), step, paradigm, accuracy."""
    return pd.read_csv(FOLDER / "blimp_by_paradigm.csv")


def final_values() -> pd.DataFrame:
    """The paper's table at step 20,000, by size and method."""
    return pd.read_csv(FOLDER / "final.csv", comment="#").set_index(["size", "method"])


def loss_of(size: str) -> pd.Series:
    """The published training loss of ReLoRA by step, nats a token."""
    log = published_table("log.csv")
    return log[(log["size"] == size) & (log.method == LABELS["relora"])].groupby("step").loss.mean()


def reset_steps() -> list[int]:
    """The steps after which the authors reset, in our count; the published loss goes on after the last."""
    offset = METHODS["relora"].reset_offset
    return [at + offset for at in range(RESET_PERIOD, STEPS, RESET_PERIOD)]


def loss_around_resets(size: str) -> pd.DataFrame:
    """The published loss minus its mean over the fifty steps before: columns step (after the reset), reset_step, loss.

    The first reset is left out, as in `around_resets`: the adapters had learnt nothing that it could merge.
    """
    loss, parts = loss_of(size), []
    for at in reset_steps()[1:]:
        near = loss.loc[at - BEFORE : at + AFTER] - loss.loc[at - BEFORE : at].mean()
        parts.append(pd.DataFrame({"step": near.index - at, "reset_step": at, "loss": near.to_numpy()}))
    return pd.concat(parts, ignore_index=True)


def published_values(size: str, method: str) -> pd.Series:
    """The published values of one model by name: its results at step 20,000, and its first and last spectra."""
    final = final_values().loc[(size, method)]
    rows = published_table("dynamics.csv")
    rows = rows[(rows["size"] == size) & (rows.method == LABELS[method])]
    spectra = rows.set_index(["quantity", "metric", "component", "step"]).value.sort_index()
    spectra = spectra[spectra.index.get_level_values("step").isin([0, STEPS])]
    spectra.index = ["/".join(map(str, key)) for key in spectra.index]
    return pd.concat([final, spectra])
