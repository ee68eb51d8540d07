"""docs/relora_cycle.png is what its script draws from config.yaml and the schedule."""

import importlib.util
from pathlib import Path

from matplotlib.testing.compare import compare_images

DOCS = Path(__file__).parents[2] / "docs"


def _script():
    spec = importlib.util.spec_from_file_location("relora_cycle", DOCS / "relora_cycle.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_the_drawing_of_a_cycle_is_the_schedules(tmp_path):
    script = _script()
    script.drawn().savefig(tmp_path / "drawn.png", dpi=script.DOTS)
    assert compare_images(str(DOCS / "relora_cycle.png"), str(tmp_path / "drawn.png"), tol=1) is None
