"""The real DAG on a study of seconds, as a user would run it, from a folder whose path has a space."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from pypdf import PdfReader

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.end_to_end


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", "tests/tiny.yaml", *arguments]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=900)


def jobs(folder: Path, *arguments: str) -> str:
    dry = snakemake(folder, "--dry-run", "--quiet", "all", *arguments)
    return snakemake(folder, "--dry-run", *arguments).stdout + dry.stdout


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a study") / "with space"
    for name in ("Snakefile", "config.yaml", "workflow", "envs", "resources", "paper", "tests/tiny.yaml"):
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    corpus, words = folder / "corpus", random.Random(0)
    vocabulary = [
        "the",
        "a",
        "minister",
        "doctor",
        "report",
        "said",
        "that",
        "people",
        "see",
        "sees",
        "new",
        "old",
        "city",
        "law",
        "was",
        "were",
        "not",
        "will",
    ]
    for domain in ("letters", "minutes"):
        (corpus / domain).mkdir(parents=True)
        for number in range(60):
            text = " ".join(words.choices(vocabulary, k=120))
            (corpus / domain / f"{number}.txt").write_text(text)
    done = snakemake(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_everything_is_there(study):
    results = study / "results"
    assert len(PdfReader(results / "paper.pdf").pages) >= 2
    assert (results / "report.html").stat().st_size > 100_000
    log = pd.read_csv(results / "cells/tiny-relora_released-s1/log.csv")
    assert log.step.tolist() == list(range(1, 21))
    assert (log.adapter_gradient_norm[log.step <= 9] == 0).all()
    evaluation = pd.read_csv(results / "cells/tiny-full-s1/evaluation.csv")
    assert set(evaluation.step) == {0, 8, 16, 20}
    for figure in (results / "figures").glob("*.png"):
        assert figure.stat().st_size > 5_000


def test_a_second_run_does_nothing(study):
    assert "Nothing to be done" in jobs(study)


def test_plot_code_reruns_the_report_alone(study):
    code = study / "workflow/relora_study/report/style.py"
    code.write_text(code.read_text() + "\n# touched\n")
    planned = jobs(study)
    assert "figure" in planned
    assert not any(rule in planned for rule in ("pretrain", "tokens", "evaluate", "dynamics"))


def test_a_plot_setting_reruns_the_report_alone(study):
    planned = jobs(study, "--config", "report={title: Another title}")
    assert "paper" in planned
    assert not any(rule in planned for rule in ("pretrain", "tokens", "evaluate", "dynamics"))


def test_a_seed_trains_only_its_own_cells(study):
    planned = jobs(study, "--config", "study={seeds: [1, 2]}")
    assert "tiny-full-s2" in planned and "Pretraining tiny-full-s1" not in planned


def test_a_typo_stops_before_any_job(study):
    done = snakemake(study, "--config", "train={stepz: 5}")
    assert done.returncode != 0
    assert "train.stepz = 5: unknown key" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout
