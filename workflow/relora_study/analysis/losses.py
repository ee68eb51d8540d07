"""The held-out losses of many cells, document by document, from which tables take means and paired differences.

Beside them stand the losses of counted n-grams on the same documents, the yardsticks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from ..config import Cell
from ..config.settings import Diet
from ..errors import UserError
from ..storage.files import read_result
from .effects import Effect, Numbers

FILE = "held_out.csv"  # of a cell (evaluate.held_out)
YARDSTICKS = "evaluation/yardsticks.csv"  # in results/ (evaluate.yardsticks)
SHARED = ["document", "tokens", "bytes"]


@dataclass(frozen=True)
class Losses:
    """The summed nats of each cell on each document, which all cells share; NaN throughout where a cell diverged."""

    tokens: Numbers  # [documents]
    nats: Mapping[str, Numbers]  # cell -> [documents]
    bytes: Numbers | None = None

    @classmethod
    def read(cls, folder: Path, cells: Iterable[str]) -> Self:
        """Read the losses of ``cells`` in ``folder``. Raises :class:`UserError` if one is missing or of other text."""
        tables = {name: read_result(folder / name / FILE) for name in cells}
        first = next(iter(tables.values()))
        for name, table in tables.items():
            if not table[SHARED].equals(first[SHARED]):
                raise UserError(
                    f"{folder / name / FILE} is of other held-out text than the others; delete it, run again"
                )
        return cls.of_table(pd.concat([first[SHARED], *(t.nats.rename(name) for name, t in tables.items())], axis=1))

    @classmethod
    def of_table(cls, table: pd.DataFrame) -> Self:
        """The losses in ``table``: a row a document with its tokens and bytes, and a column of nats a cell."""
        nats = {str(name): table[name].to_numpy(float) for name in table if name not in SHARED}
        return cls(table.tokens.to_numpy(float), nats, table.bytes.to_numpy(float))

    @classmethod
    def of_means(cls, losses: Mapping[str, float]) -> Self:
        """One loss a cell (nats a token), of text whose documents are not known: their chance is in no interval."""
        return cls(np.ones(1), {name: np.array([loss]) for name, loss in losses.items()})

    @property
    def table(self) -> pd.DataFrame:
        """What :meth:`of_table` reads."""
        shared = {"document": range(len(self.tokens)), "tokens": self.tokens.astype(int)}
        shared |= {} if self.bytes is None else {"bytes": self.bytes.astype(int)}
        return pd.DataFrame(shared | dict(self.nats))

    def of(self, cell: str) -> float:
        """The loss of ``cell`` in nats a token; NaN where it diverged."""
        return float(self.nats[cell].sum() / self.tokens.sum())

    def mean(self, cells: Iterable[str]) -> Effect:
        """The mean loss of ``cells``, one a seed; missing where one of them diverged."""
        values = [self.nats[name] for name in cells]
        return Effect.of(np.reshape(values, (len(values), len(self.tokens))), self.tokens)

    def difference(self, pairs: Iterable[tuple[str, str]]) -> Effect:
        """The mean loss of the first of each pair less the second's; a pair of which one diverged is left out."""
        every = [self.nats[ours] - self.nats[other] for ours, other in pairs]
        finite = [values for values in every if np.isfinite(values).all()]
        return Effect.of(np.reshape(finite, (len(finite), len(self.tokens))), self.tokens)


def yardstick_losses(results: Path, cells: Iterable[Cell]) -> dict[str, float]:
    """The loss of each yardstick (nats a token), a mean over the diets of ``cells``.

    Raises :class:`UserError` if its file is missing, or lacks the diet of a cell.
    """
    path = results / YARDSTICKS
    rows = read_result(path)
    keys = [(-1 if diet.seed is None else diet.seed, diet.sequences) for diet in map(Diet.of, cells)]
    rows = rows.assign(seed=rows.seed.fillna(-1))
    by_diet = rows.pivot(index=["seed", "sequences"], columns="yardstick", values="loss")
    if not set(keys) <= set(by_diet.index):
        raise UserError(f"{path} was counted for other cells; delete it, and run snakemake {path}")
    means = by_diet.loc[keys].mean()
    return {name: float(means[name]) for name in rows.yardstick.unique()}
