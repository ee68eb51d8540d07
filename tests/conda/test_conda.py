"""`make test-conda`: the tiny study with `--use-conda`, in environments that a stand-in for conda builds by pip.

At both ends of what envs/*.yaml allow: the lowest versions, and the lock's.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pypdf import PdfReader
from studies import ROOT, command, lay_out

pytestmark = pytest.mark.conda
ENVIRONMENTS = ("data", "report", "train")
ENDS = {"lowest": {}, "locked": {"STAND_IN_LOCK": str(ROOT / "requirements.in")}}
NOTE_PYTHON = """
import sys

with (Path(__file__).parents[1] / "pythons.txt").open("a") as notes:
    notes.write(f"{sys.prefix}\\t{' '.join(sys.orig_argv)}\\n")
"""


def with_conda(home: Path) -> dict[str, str]:
    """What a shell has in which conda's `base` is active, and in it a venv with Snakemake."""
    path = [Path(sys.executable).parent, home / "bin", "/usr/bin", "/bin"]
    inherited = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "HOME", "TMPDIR"))}
    return inherited | {"PATH": os.pathsep.join(map(str, path)), "CONDA_PREFIX": str(home)}


@pytest.fixture(scope="module", params=ENDS)
def conda_study(tmp_path_factory, request):
    """The tiny study, run with conda in a folder whose path has a space, and what the run printed."""
    home = shutil.copytree(ROOT / "tests/conda", tmp_path_factory.mktemp("conda") / "home")
    folder = lay_out(tmp_path_factory.mktemp("a conda study") / "with space")
    with (folder / "workflow/sitecustomize.py").open("a") as code:
        code.write(NOTE_PYTHON)
    run = command("--use-conda")
    done = subprocess.run(
        run, cwd=folder, capture_output=True, text=True, env=with_conda(home) | ENDS[request.param], timeout=3600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    yield folder
    shutil.rmtree(folder / ".snakemake/conda")  # gigabytes, before the other end's


def environments(folder: Path) -> dict[str, Path]:
    """The environments that Snakemake made, by the names of their files."""
    made = {file.read_bytes(): file.with_suffix("") for file in (folder / ".snakemake/conda").glob("*.yaml")}
    return {name: made[(folder / f"envs/{name}.yaml").read_bytes()] for name in ENVIRONMENTS}


def test_a_paper_and_a_web_report_are_made(conda_study):
    results = conda_study / "results"
    assert len(PdfReader(results / "paper.pdf").pages) >= 2
    assert (results / "report.html").stat().st_size > 100_000


def test_each_job_runs_its_environments_python(conda_study):
    lines = [line.split("\t") for line in (conda_study / "pythons.txt").read_text().splitlines()]
    jobs = {
        (Path(prefix), words.partition("-m relora_study.")[2].split()[0])
        for prefix, words in lines
        if "-m relora_study." in words
    }
    made = environments(conda_study)
    stages = {"data": "data", "train": "train", "evaluate": "train", "dynamics": "train", "report": "report"}
    assert jobs == {(made[environment], stage) for stage, environment in stages.items()}


def test_data_and_report_jobs_warn_of_nothing(conda_study):
    logs = [log for stage in ("data", "report") for log in (conda_study / "results/logs" / stage).glob("*.log")]
    assert len(logs) > 30
    text = "".join(log.read_text() for log in logs)
    assert not re.search("warn|not found|deprecat|traceback", text, re.IGNORECASE), text


def test_data_and_report_environments_hold_no_torch(conda_study):
    made = environments(conda_study)
    held = {name for name in made if list(made[name].glob("lib/*/site-packages/torch"))}
    assert held == {"train"}
