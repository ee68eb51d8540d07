"""The container's recipe. No container engine runs here: a test runs its steps as commands in a fresh folder."""

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dockerfile_parse import DockerfileParser
from studies import ROOT


def steps() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile with their values, in order."""
    parser = DockerfileParser(fileobj=io.BytesIO((ROOT / "Dockerfile").read_bytes()))
    return [(step["instruction"], step["value"]) for step in parser.structure if step["instruction"] != "COMMENT"]


def values(instruction: str) -> list[str]:
    return [value for name, value in steps() if name == instruction]


def test_the_base_is_pinned_and_has_the_python_of_the_conda_environments():
    (base,) = values("FROM")
    name, tag = base.split(":")
    python = yaml.safe_load((ROOT / "envs/report.yaml").read_text())["dependencies"][0].partition("=")[2]
    assert name == "python" and tag.startswith(f"{python}-slim-"), "a tag with Python's and Debian's release"


def test_what_is_copied_exists_and_reaches_the_engine_and_nothing_else_does():
    sources = [source for value in values("COPY") for source in shlex.split(value)[:-1]]
    assert all((ROOT / source).exists() for source in sources)
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in ("#", "!")]
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert ignored == ["*", "**/__pycache__"] and sent == {source.split("/")[0] for source in sources}


def test_it_installs_as_the_makefile_does_and_runs_the_study_into_a_volume():
    assert "make .venv/run" in values("RUN") and not any("pip" in value for value in values("RUN"))
    assert json.loads(values("CMD")[0]) == ["snakemake", "--cores", "all"]
    assert values("VOLUME") == ["/work/results"] and values("WORKDIR") == ["/work"]
    assert values("ENV") == ["PATH=/work/.venv/bin:$PATH"]


def copy(value: str, folder: Path) -> None:
    """As COPY: files go into the target, and a folder's content becomes the target's."""
    *sources, target = shlex.split(value)
    for source in sources:
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, folder / target)


def slim_tools(folder: Path) -> Path:
    """Links to Python, `make` and what Debian's essential packages hold, as the image has them: no git, no compiler."""
    folder.mkdir()
    packages = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Essential} ${Package}\n"],
        capture_output=True,
        text=True,
        check=True,
    )
    essential = [line.split()[1] for line in packages.stdout.splitlines() if line.startswith("yes ")]
    held = subprocess.run(["dpkg", "--listfiles", *essential], capture_output=True, text=True, check=True).stdout
    for tool in [*held.splitlines(), shutil.which("make")]:
        path = Path(tool)
        if path.parent.name == "bin" and path.is_file() and not (folder / path.name).exists():
            (folder / path.name).symlink_to(path)
    if not (folder / "which").exists():  # an alternative, which no package lists
        (folder / "which").symlink_to("/usr/bin/which")
    (folder / "python3").symlink_to((Path(sys.base_prefix) / "bin/python3").resolve())
    return folder


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("dpkg"), reason="Debian's lists of packages say what the image holds")
def test_its_steps_make_a_folder_in_which_the_study_runs(tmp_path):
    """Every step but apt-get's, for which this machine's `make` stands in; then the command, planned and in part."""
    tools = slim_tools(tmp_path / "bin")
    work = tmp_path / "work"
    work.mkdir()
    network = {
        key: value for key, value in os.environ.items() if key.startswith(("PIP_", "SSL_", "http", "HTTP", "no_"))
    }
    environment = network | {"PATH": f"{work}/.venv/bin:{tools}", "HOME": str(tmp_path)}
    options = {"cwd": work, "env": environment, "capture_output": True, "text": True, "timeout": 1800}
    for instruction, value in steps():
        if instruction == "COPY":
            copy(value, work)
        if instruction == "RUN" and "apt-get" not in value:
            done = subprocess.run(["sh", "-c", value], **options)
            assert done.returncode == 0, done.stdout + done.stderr
    command = json.loads(values("CMD")[0])
    planned = subprocess.run([*command, "--dry-run"], **options)
    assert planned.returncode == 0 and "pretrain" in planned.stdout, planned.stdout + planned.stderr
    drawn = "results/published/figures/training_curves.pdf"
    made = subprocess.run([*command, "--", drawn], **options)
    assert made.returncode == 0 and (work / drawn).stat().st_size > 5_000, made.stdout + made.stderr
    assert "profile" in planned.stderr and "profiles/default" in planned.stderr
