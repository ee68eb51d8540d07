"""The figures and tables of docs/findings.md, made from the small tables in docs/results that presets left."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from ..analysis.experiments import sweep_table
from ..config.experiments import PREVIOUS
from ..storage.files import read_csv
from .escape import markdown
from .figures.experiments import draw_changes
from .numbers import readable

TABLE = re.compile(r"(<!-- table (\w+): made by `make findings` -->\n).*?(?=<!-- end -->)", re.DOTALL)


class Finding(NamedTuple):
    """What one table of runs shows: its figure, and its numbers in words."""

    draw: Callable[[pd.DataFrame], Figure]
    table: Callable[[pd.DataFrame], pd.DataFrame]


def compared_with(against: str) -> Finding:
    """Methods compared with one of them, or each with the one before."""
    return Finding(
        lambda runs: draw_changes(runs, against),
        lambda runs: sweep_table(runs, [], against).drop(
            columns=["verdict", "diverged", "seeds_paired", "p", "p_holm"]
        ),
    )


FINDINGS = {"ladder": compared_with(PREVIOUS)}


def draw(name: str, folder: Path) -> Figure:
    """The figure ``name`` from the table of its name in ``folder``."""
    return FINDINGS[name].draw(read_csv(folder / f"{name}.csv"))


def with_tables(page: str, folder: Path) -> str:
    """``page`` with each table between its marks made again from ``folder``."""
    return TABLE.sub(lambda mark: mark[1] + _table(mark[2], folder), page)


def _table(name: str, folder: Path) -> str:
    words = readable(FINDINGS[name].table(read_csv(folder / f"{name}.csv"))).map(markdown)
    sides = ["left" if column in ("size", "method", "compared with") else "right" for column in words]
    return str(words.to_markdown(index=False, disable_numparse=True, colalign=sides)) + "\n"
