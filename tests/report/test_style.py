"""The user's matplotlib settings change no figure and end no job."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DRAW = """
import sys
from pathlib import Path
from relora_study.report.figures import FIGURES
from relora_study.report.style import finish, panels
figure, grid = panels(1, 1)
grid[0, 0].plot([1, 2, 3], [1, 4, 9], label="a $x_1$")
grid[0, 0].set_title("title")
finish(figure, Path(sys.argv[1]))
"""
RC = """backend: nonsense
text.usetex: True
figure.facecolor: pink
figure.dpi: 33
lines.linewidth: 9
savefig.bbox: tight
path.sketch: 1,2,3
pdf.compression: 0
svg.fonttype: none
interactive: True
"""


def drawn(folder: Path, **environment: str) -> list[bytes]:
    """The bytes of one figure, as PDF and PNG, drawn by a process that works in ``folder``."""
    everyone = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT / "workflow")}
    command = [sys.executable, "-c", DRAW, str(folder / "figure")]
    done = subprocess.run(command, cwd=folder, env=everyone | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [(folder / f"figure.{kind}").read_bytes() for kind in ("pdf", "png")]


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return drawn(tmp_path_factory.mktemp("clean"))


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense"])
def test_no_backend_of_the_users_is_asked_for(clean, tmp_path, backend):
    assert drawn(tmp_path, MPLBACKEND=backend) == clean


@pytest.mark.parametrize("place", ["matplotlibrc", ".config/matplotlib/matplotlibrc"])
def test_no_matplotlibrc_changes_a_figure(clean, tmp_path, place):
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(RC)
    assert drawn(tmp_path) == clean


def test_a_matplotlibrc_that_nobody_can_read_ends_no_job(clean, tmp_path):
    (tmp_path / "rc").write_bytes(b"\xff\xfe bad")
    assert drawn(tmp_path, MATPLOTLIBRC=str(tmp_path / "rc")) == clean
