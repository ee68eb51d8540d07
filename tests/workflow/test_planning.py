"""A study of many cells is planned in seconds."""

import resource
from pathlib import Path

import pytest
from studies import lay_out, snakemake


def planning_seconds(folder: Path, seeds: int) -> float:
    """Processor seconds of a dry run of two methods with ``seeds`` seeds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    chosen = ",".join(map(str, range(1, seeds + 1)))
    done = snakemake(folder, "--dry-run", "--quiet", "--config", f"study={{seeds: [{chosen}]}}")
    assert done.returncode == 0, done.stdout + done.stderr
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


@pytest.mark.slow
@pytest.mark.parametrize(("cells", "most"), [(200, 5), (1000, 20)])
def test_many_cells_are_planned_in_seconds(tmp_path, cells, most):
    """The fewest of three runs: another process on the machine makes one slower, never faster."""
    folder = lay_out(tmp_path / "study")
    assert min(planning_seconds(folder, cells // 2) for _ in range(3)) < most
