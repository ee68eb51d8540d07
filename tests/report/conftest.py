"""Figures of hand-made readings, each drawn once."""

from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from relora_study.report.figures import FIGURES
from relora_study.report.style import finish


@pytest.fixture(scope="session")
def figures(tmp_path_factory) -> Path:
    """The folder where `drawn` puts its files."""
    return tmp_path_factory.mktemp("figures")


@pytest.fixture(scope="session")
def drawn(unchanged, figures) -> Callable[[str], Figure]:
    """Draws a figure by its name, and its files, when a test first asks for it."""
    made: dict[str, Figure] = {}

    def figure_of(name: str) -> Figure:
        if name not in made:
            made[name] = FIGURES[name](unchanged)
            finish(made[name], figures / name)
            pyplot.close(made[name])
        return made[name]

    return figure_of
