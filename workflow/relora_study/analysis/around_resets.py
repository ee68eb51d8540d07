"""The training log around resets: losses and norms against their means over the steps before a reset."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

MEASURED = ["loss", "gradient_norm", "update_norm"]


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


def over_full_rank(log: pd.DataFrame, full_rank: str | None) -> pd.DataFrame:
    """``log`` with losses minus the loss of the method ``full_rank``, of equal size and seed, at each step.

    Both cells see one sequence of batches, so the difficulty of a batch cancels, and most of the noise with it. A cell
    without such a partner keeps its losses.
    """
    keys = ["size", "seed", "step"]
    full = log[log.method == full_rank][[*keys, "loss"]].rename(columns={"loss": "of_full"})
    both = log.merge(full, on=keys, how="left")
    return both.assign(loss=both.loss - both.of_full.fillna(0.0)).drop(columns="of_full")


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
