"""A source of numbers: our runs, the published values, or both. Figures, tables and the audit read a source.

Our runs and the published ones share what this module reads from their rows, such as the log around resets.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from ..config import Method, Report
from .published import BEFORE, Published, loss_around_resets
from .published_recipe import LABELS, SIZES, Trained, shows_published
from .results import Runs

MEASURED = ["loss", "gradient_norm", "update_norm"]


@dataclass(frozen=True)
class Overlay:
    """Our runs with the published curves beside them, for figures."""

    runs: Runs
    published: Published

    @cached_property
    def cells(self) -> Mapping[str, Trained]:
        """Our cells, then the published models."""
        return {**self.runs.cells, **self.published.cells}

    @property
    def sizes(self) -> list[str]:
        """Our sizes alone: a published curve appears where a size has the paper's name."""
        return self.runs.sizes

    @property
    def methods(self) -> list[str]:
        """Our methods, then the published methods."""
        return self.runs.methods + self.published.methods

    @property
    def full_rank_method(self) -> str | None:
        """Ours."""
        return self.runs.full_rank_method

    @property
    def suite(self) -> str:
        """The name of our minimal pairs."""
        return self.runs.suite

    @property
    def diverged(self) -> Mapping[str, int]:
        """Our cells that diverged: no published model did."""
        return self.runs.diverged

    @property
    def yardsticks(self) -> Mapping[str, float]:
        """Those of our text."""
        return self.runs.yardsticks

    @property
    def hour_unit(self) -> str:
        """The unit of our training time."""
        return self.runs.hour_unit

    def table(self, file: str) -> pd.DataFrame:
        """The rows of both sources."""
        return pd.concat([self.runs.table(file), self.published.table(file)], ignore_index=True)

    def labelled(self) -> pd.DataFrame:
        """The readings of both sources."""
        return pd.concat([self.runs.labelled(), self.published.labelled()], ignore_index=True)

    def regular(self) -> pd.DataFrame:
        """Our readings alone: the authors published none like for like."""
        return self.runs.regular()

    def hours(self, size: str, method: str, steps: pd.Series) -> pd.Series:
        """Our hours, or the published A100 GPU-hours."""
        source = self.runs if method in self.runs.methods else self.published
        return source.hours(size, method, steps)


Source = Runs | Published | Overlay


def overlaid(runs: Runs, report: Report) -> Source:
    """``runs``; where ``report`` asks for it, with the published curves of the sizes that have the paper's names."""
    if not shows_published(report, runs.cells):
        return runs
    return Overlay(runs, Published([size for size in runs.sizes if size in SIZES]))


@dataclass(frozen=True)
class AroundResets:
    """The log around resets.

    ``rows`` has size, method, step (after the reset), reset_step, loss (a difference) and, where the log has norms,
    update_norm (a ratio). The reference of both is a mean over ``before`` steps. ``over_full_rank`` says whether the
    loss of full rank on each batch was subtracted first.
    """

    rows: pd.DataFrame
    before: int
    over_full_rank: bool


def around_resets(log: pd.DataFrame, resets: Iterable[int] = (), before: int = 10, after: int = 20) -> pd.DataFrame:
    """Loss (a difference) and norms (ratios) against their means over ``before`` steps, by step after each reset.

    Columns step (after the reset), reset_step and those of ``MEASURED``. The first reset of a cell is left out:
    where adapters were dead until then, it merges nothing. A cell without resets is read around the steps ``resets``.
    """
    parts = [pd.DataFrame(columns=["step", "reset_step", *MEASURED])]
    for _, cell in log.groupby("cell"):
        by_step = cell.set_index("step")[[*MEASURED, "reset"]]
        for at in by_step.index[by_step.reset == 1][1:] if by_step.reset.any() else resets:
            usual = by_step.loc[at - before + 1 : at].mean()
            near = by_step.loc[at - before + 1 : at + after]
            change = {name: near[name] / usual[name] for name in MEASURED} | {"loss": near.loss - usual.loss}
            parts.append(pd.DataFrame(change).reset_index().assign(reset_step=at))
            parts[-1]["step"] -= at
    return pd.concat([part for part in parts if len(part)] or parts)


def resets_of(source: Source) -> AroundResets:
    """The log of ``source`` around all resets but the first; of an overlay ours alone, because it has every step.

    The published loss is in bins of ten steps, because the logged steps differ from reset to reset. A method of ours
    without resets is read where others have theirs.
    """
    if isinstance(source, Overlay):
        return resets_of(source.runs)
    if isinstance(source, Published):
        binned = [loss_around_resets(size).assign(size=size, method=LABELS["relora"]) for size in source.sizes]
        rows = pd.concat(binned, ignore_index=True)
        return AroundResets(rows.assign(step=rows.step // 10 * 10 + 5), before=BEFORE, over_full_rank=False)
    parts = []
    for size, log in source.log_over_full_rank().groupby("size", sort=False):
        resets = sorted(log.step[log.reset == 1].unique())[1:]
        parts += [
            around_resets(log[log.method == method], resets).assign(size=size, method=method)
            for method in log.method.unique()
        ]
    rows = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    return AroundResets(rows, before=10, over_full_rank=source.full_rank_method is not None)


def select(rows: pd.DataFrame, quantity: str, metric: str) -> pd.DataFrame:
    """The rows of one quantity and metric of a table of readings."""
    return rows[(rows.quantity == quantity) & (rows.metric == metric)]


def while_adapted(rows: pd.DataFrame, method: Method) -> pd.DataFrame:
    """The readings ``rows`` of a model, without the "updates" of steps in which its whole weights train.

    Before the adapters begin, and after they end, the paper's label means a gradient, which no rank bounds.
    """
    adapted = (rows.step > method.full_rank_steps) | (method.full_rank_steps == 0)
    if method.full_rank_from is not None:
        adapted &= rows.step <= method.full_rank_from
    return rows[adapted | ~rows.quantity.isin(["updates", "updates_exact"])]


def measured(source: Source, suite: str, item: str, metric: str) -> pd.DataFrame:
    """The rows of evaluation.csv of one suite, item and metric."""
    rows = source.table("evaluation.csv")
    return rows[(rows.suite == suite) & (rows["item"] == item) & (rows.metric == metric)]


def by_curve(rows: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """The rows of each size and method."""
    return {(str(size), str(method)): curve for (size, method), curve in rows.groupby(["size", "method"], sort=False)}


def full_rank(cell: Trained, component: str) -> int:
    """min(m, n) of the matrix of a component; a circuit, which no layer has as a matrix, is as wide as the model."""
    known = component in cell.size.decoder.components
    return min(cell.size.component_shape(component)) if known else cell.size.d_model


def adapts(cell: Trained, component: str) -> bool:
    """Whether the method has adapters on the matrix of a component."""
    return bool(cell.method.rank) and cell.size.decoder.components[component].target in cell.method.targets


def rank_ceiling(cell: Trained, component: str) -> float:
    """r / min(m, n) of a component's adapters. PER of their product passes it by round-off alone."""
    return cell.method.rank / full_rank(cell, component)
