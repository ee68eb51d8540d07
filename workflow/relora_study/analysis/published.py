"""The authors' values as a source: rows of this project's own long tables, read from resources/published."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from ..config.evaluated import BLIMP
from ..schedule import learning_rate_ratio
from .around_resets import AroundResets
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
PARADIGMS = FOLDER.parent / "blimp_paradigms.csv"
COMPONENTS = {"swiglu_w2": "w2", "ov_circuit": "ov_authors", "attention_v": "v", "attention_o": "o"}
BLIMP_PAIRS = 67_000
# The authors count steps from 0 and log before the step: the loss and rate at their 0 are those of our step 1.
COUNTED_FROM = 1
BEFORE, AFTER = 50, 200  # steps around a reset that the published loss is read at


@dataclass(frozen=True)
class Published:
    """The authors' models of ``sizes`` and the values that they report of them (analysis.source.Source)."""

    sizes: list[str] = field(default_factory=lambda: list(SIZES))
    suite: str = BLIMP
    hour_unit: str = "A100 GPU-hours"

    @property
    def cells(self) -> Mapping[str, PublishedCell]:
        """The authors' models by name."""
        return published_cells(self.sizes)

    @property
    def diverged(self) -> Mapping[str, int]:
        """None of the authors' models."""
        return {}

    @property
    def methods(self) -> list[str]:
        """The labels of the two methods."""
        return list(LABELS.values())

    def table(self, file: str) -> pd.DataFrame:
        """The values as rows of ``file`` (log.csv, evaluation.csv, dynamics.csv) with cell, size, method, seed."""
        rows = published_table(file)
        return rows[rows["size"].isin(self.sizes)]

    def labelled(self) -> pd.DataFrame:
        """The readings, which the authors label so."""
        return self.table("dynamics.csv")

    def regular(self) -> pd.DataFrame:
        """No rows: the authors read the methods at different steps."""
        return self.table("dynamics.csv").iloc[:0]

    def hours(self, size: str, method: str, steps: pd.Series) -> pd.Series:
        """A100 GPU-hours at ``steps``: the published hours to step 20,000, spread evenly."""
        key = next(name for name, label in LABELS.items() if label == method)
        return steps * (float(final_values().gpu_hours[size, key]) / STEPS)

    def around_resets(self) -> AroundResets:
        """The loss minus its mean of fifty steps before. Steps are in bins of ten: resets have different ones."""
        parts = [loss_around_resets(size).assign(size=size, method=LABELS["relora"]) for size in self.sizes]
        rows = pd.concat(parts, ignore_index=True)
        return AroundResets(rows.assign(step=rows.step // 10 * 10 + 5), before=BEFORE, over_full_rank=False)


@cache
def published_table(file: str) -> pd.DataFrame:
    """The authors' values as rows of ``file``, of both sizes."""
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
    phenomena = paradigms.paradigm.map(pd.read_csv(PARADIGMS, comment="#").set_index("paradigm").phenomenon)
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
    """ReLoRA's training loss by step, nats a token."""
    log = published_table("log.csv")
    return log[(log["size"] == size) & (log.method == LABELS["relora"])].groupby("step").loss.mean()


def reset_steps() -> list[int]:
    """The steps that a reset follows, in our count, up to the last that the published loss goes past."""
    offset = METHODS["relora"].reset_offset
    return [at + offset for at in range(RESET_PERIOD, STEPS, RESET_PERIOD)]


def loss_around_resets(size: str) -> pd.DataFrame:
    """The published loss minus its mean of fifty steps before: columns step (after the reset), reset_step, loss.

    The first reset merges nothing that the adapters have learnt, and is left out, as in `around_resets`.
    """
    loss, parts = loss_of(size), []
    for at in reset_steps()[1:]:
        near = loss.loc[at - BEFORE : at + AFTER] - loss.loc[at - BEFORE : at].mean()
        parts.append(pd.DataFrame({"step": near.index - at, "reset_step": at, "loss": near.to_numpy()}))
    return pd.concat(parts, ignore_index=True)


def published_values(size: str, method: str) -> pd.Series:
    """The values that the paper reports of one model at step 20,000, and its first and last spectra, by name."""
    final = final_values().loc[(size, method)]
    rows = published_table("dynamics.csv")
    rows = rows[(rows["size"] == size) & (rows.method == LABELS[method])]
    spectra = rows.set_index(["quantity", "metric", "component", "step"]).value.sort_index()
    spectra = spectra[spectra.index.get_level_values("step").isin([0, STEPS])]
    spectra.index = ["/".join(map(str, key)) for key in spectra.index]
    return pd.concat([final, spectra])
