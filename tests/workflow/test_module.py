"""The workflow as a `module:` of another one, from a clone and as the catalog's users get it, from a Git host."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from studies import ROOT, lay_out

pytestmark = pytest.mark.end_to_end
HOST = "https://github.com/"
SNAKEFILE = """configfile: "config/config.yaml"


module relora:
    snakefile:
        {snakefile}
    config:
        config


use rule * from relora
"""
MADE = ["landing.rst", "tables/final_results.csv", "figures/training_curves.pdf", "figures/training_curves.png"]


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A repository of the workflow, with a tag, in a folder whose path has a space."""
    folder = lay_out(tmp_path_factory.mktemp("hosts") / "an owner" / "relora")
    shutil.copytree(ROOT / "config", folder / "config")
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message=all"], ["tag", "v1"]):
        git(folder, *arguments)
    return folder


@pytest.fixture(params=["clone", "host"])
def project(request, clone, tmp_path):
    """Another folder, with a Snakefile that uses the workflow as a module, and how to run Snakemake there."""
    host = 'github("owner/relora", path="workflow/Snakefile", tag="v1")'
    declaration = host if request.param == "host" else repr(str(clone / "workflow/Snakefile"))
    folder = tmp_path / "another project"
    (folder / "workflow").mkdir(parents=True)
    (folder / "workflow/Snakefile").write_text(SNAKEFILE.format(snakefile=declaration))
    shutil.copytree(clone / "config", folder / "config")
    shutil.copytree(clone / "corpus", folder / "corpus")
    # Git reads the host's repositories from this disk, and Snakemake keeps its clones in the test's folder.
    environment = {"PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"], "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_VALUE_0": HOST + "owner/relora"}
    environment |= {"GIT_CONFIG_KEY_0": f"url.file://{clone}.insteadOf"}

    def snakemake(*arguments: str) -> str:
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return folder, snakemake


@pytest.mark.long
def test_another_workflow_finds_all_that_a_study_needs(project, clone):
    folder, snakemake = project
    study = "--configfile", str(clone / "tests/tiny.yaml")
    planned = snakemake("--dry-run", *study)
    for rule in ("study", "documents", "pretrain", "evaluate", "dynamics", "figure", "paper"):
        assert f"\n{rule} " in planned, f"{rule} is not planned: {planned}"
    targets = [f"results/published/{name}" for name in MADE]
    snakemake(*study, "--", "results/data/documents", *targets)
    assert all((folder / target).stat().st_size for target in targets)
    assert len(list((folder / "results/data/documents").glob("*.parquet"))) == 2
    assert not (clone / "results").exists() and not (clone / ".snakemake").exists()
    snakemake(*study, "--report", "report.html", "--", *targets)
    report = (folder / "report.html").read_text()
    captions = yaml.safe_load((clone / "workflow/report/captions.yaml").read_text())["published"]
    assert captions["figures"]["training_curves"].split("{")[0].strip()[:40] in report
    assert "Nothing to be done" in snakemake(*study, "--", *targets), "results carry the mark of their version"


def test_the_catalog_finds_what_it_looks_for():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["software-stack-deployment"] == {"conda": True, "report": True} and usage["report"]
    assert (ROOT / "config/README.md").is_file()
    assert (ROOT / "config/config.yaml").resolve() == ROOT / "config.yaml"


def test_a_clone_runs_its_top_level_snakefile_first(clone):
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--configfile", "tests/tiny.yaml"]
    (clone / "workflow/Snakefile").write_text("raise SystemExit('not this one')\n")
    try:
        done = subprocess.run(command, cwd=clone, capture_output=True, text=True)
        assert done.returncode == 0 and "pretrain" in done.stdout
    finally:
        shutil.copy(ROOT / "workflow/Snakefile", clone / "workflow/Snakefile")
        shutil.rmtree(clone / ".snakemake", ignore_errors=True)
