"""Counted n-gram models beside trained ones: what each method's loss is over theirs."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ..config import Cell
from ..config.settings import Diet
from ..errors import UserError

FILE = "evaluation/yardsticks.csv"  # in results/ (evaluate.yardsticks)


def yardstick_losses(results: Path, cells: Iterable[Cell]) -> dict[str, float]:
    """The loss of each yardstick (nats a token), a mean over the diets of ``cells``.

    Raises :class:`UserError` if its file is missing, or lacks the diet of a cell.
    """
    path = results / FILE
    try:
        rows = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; run snakemake {path}") from error
    keys = [(-1 if diet.seed is None else diet.seed, diet.sequences) for diet in map(Diet.of, cells)]
    rows = rows.assign(seed=rows.seed.fillna(-1))
    by_diet = rows.pivot(index=["seed", "sequences"], columns="yardstick", values="loss")
    if not set(keys) <= set(by_diet.index):
        raise UserError(f"{path} was counted for other cells; delete it, and run snakemake {path}")
    means = by_diet.loc[keys].mean()
    return {name: float(means[name]) for name in rows.yardstick.unique()}
