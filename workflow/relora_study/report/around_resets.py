"""The steps of a training log around its resets, set against the steps before."""

import pandas as pd


def around_resets(log: pd.DataFrame, before: int = 10, after: int = 20) -> pd.DataFrame:
    """Loss (difference) and gradient norm (ratio) against their means of ``before`` steps, by step after each reset.

    The first reset merges nothing that every method has learnt, and is left out.
    """
    parts = [pd.DataFrame(columns=["step", "reset_step", "loss", "gradient_norm"])]
    for _, cell in log.groupby("cell"):
        by_step = cell.set_index("step")
        for at in by_step.index[by_step.reset == 1][1:]:
            usual = by_step.loc[at - before + 1 : at].mean(numeric_only=True)
            near = by_step.loc[at - before + 1 : at + after]
            change = {"loss": near.loss - usual.loss, "gradient_norm": near.gradient_norm / usual.gradient_norm}
            parts.append(pd.DataFrame(change).reset_index().assign(reset_step=at))
            parts[-1]["step"] -= at
    return pd.concat([part for part in parts if len(part)] or parts)
