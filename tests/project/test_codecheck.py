"""The outputs that codecheck.yml names for a checker are outputs of the default study."""

import subprocess
import sys

from relora_study.storage.files import read_yaml
from studies import ROOT

CHECKED = read_yaml(ROOT / "codecheck.yml")


def made() -> set[str]:
    """The files that the jobs of `make run` leave, whether they are there or not."""
    command = [sys.executable, "-m", "snakemake", "--summary"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {line.split("\t")[0] for line in listed.splitlines()[1:]}


def test_every_file_for_a_checker_is_made_by_the_default_study_and_has_a_comment():
    named = {entry["file"]: entry["comment"] for entry in CHECKED["manifest"]}
    assert len(named) == len(CHECKED["manifest"]) and all(named.values())
    assert named.keys() <= made() and "results/paper.pdf" in named


def test_the_paper_is_the_default_studys_and_no_checker_is_invented():
    assert CHECKED["paper"]["title"] == read_yaml(ROOT / "config.yaml")["report"]["title"]
    assert CHECKED["paper"]["authors"] == read_yaml(ROOT / "CITATION.cff")["authors"]
    assert not CHECKED["codechecker"] and not {"repository", "certificate", "report"} & CHECKED.keys()
