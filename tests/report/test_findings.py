"""The figures of docs/findings.md are those that docs/results gives, and its numbers stand in their tables."""

from pathlib import Path

import pytest
from matplotlib.testing.compare import compare_images
from relora_study.report.findings import FINDINGS, draw
from relora_study.report.style import finish

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", FINDINGS)
def test_a_figure_is_drawn_again_from_its_table(name, tmp_path):
    finish(draw(name, DOCS / "results"), tmp_path / name)
    assert compare_images(str(DOCS / f"images/{name}.png"), str(tmp_path / f"{name}.png"), tol=1) is None


def test_every_figure_and_table_of_the_findings_is_in_the_repository():
    kept = {place.stem for place in (DOCS / "images").glob("*.png")}
    assert kept == set(FINDINGS) == {place.stem for place in (DOCS / "results").glob("*.csv")}
