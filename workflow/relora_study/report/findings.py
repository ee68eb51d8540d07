"""The figures of docs/findings.md, drawn from the small tables in docs/results that presets left."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ..config.experiments import PREVIOUS
from ..storage.files import read_csv
from .figures.experiments import draw_changes

FINDINGS: dict[str, Callable[[pd.DataFrame], Figure]] = {
    "ladder": lambda runs: draw_changes(runs, PREVIOUS),
}


def draw(name: str, folder: Path) -> Figure:
    """The figure ``name`` from the table of its name in ``folder``."""
    return FINDINGS[name](read_csv(folder / f"{name}.csv"))
