"""Targets of the Makefile that need neither .venv nor git."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_clean_works_in_an_unpacked_archive_and_keeps_what_the_project_ships(tmp_path):
    """Without git, and inside another repository, whose git knows nothing of these files."""
    folder = tmp_path / "another repository/a study"
    folder.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", folder.parent], check=True)
    shutil.copy(ROOT / "Makefile", folder)
    shutil.copy(ROOT / "requirements.in", folder)
    shipped = subprocess.run(["git", "-C", ROOT, "ls-files", "results"], capture_output=True, text=True, check=True)
    files = shipped.stdout.split()
    for name in [*files, "results/cells/a/manifest.json", "results/.hidden", ".snakemake/metadata/x", ".venv/run"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    environment = os.environ | {"GIT_DIR": "/nowhere"}
    done = subprocess.run(["make", "clean"], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left == {*files, "Makefile", "requirements.in", ".venv/run"}
