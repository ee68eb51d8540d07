"""`snakemake published_only` and its web report, for real: what the released values give without any training."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pypdf import PdfReader

from ..browser import look_at

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.end_to_end
PARTS = ("Snakefile", "config.yaml", "workflow", "envs", "resources", "paper")


def snakemake(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    bare = {"PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"]}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=bare, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    folder = tmp_path_factory.mktemp("released") / "with space"
    for name in PARTS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        folder.mkdir(exist_ok=True)
        copy(ROOT / name, folder / name)
    snakemake(folder, "published_only")
    snakemake(folder, "published_only", "--report", "results/published/report.html")
    return folder / "results/published"


def test_every_figure_table_and_the_paper_are_made_without_training(released):
    asked = yaml.safe_load((ROOT / "workflow/report/captions.yaml").read_text())["published"]
    for kind, endings in (("figures", ("pdf", "png")), ("tables", ("csv", "md", "tex"))):
        wanted = {f"{name}.{ending}" for name in asked[kind] for ending in endings}
        assert {file.name for file in (released / kind).iterdir()} == wanted
    assert not (released.parent / "cells").exists()
    text = "".join(page.extract_text() for page in PdfReader(released / "paper.pdf").pages)
    assert "847" not in text and "7.4e-166" in text, "the published p-value, computed again"


def test_the_web_report_opens_in_a_browser(released, tmp_path):
    seen = look_at(released / "report.html", tmp_path / "profile", ROOT / "results/tests/released-report.png")
    assert seen.top >= 0, "the title can be seen"
    assert seen.complaints == []
    assert seen.images == sum(path.endswith(".png") for path in seen.captions) == 11 and seen.broken == []
    assert all(len(caption) > 30 for caption in seen.captions.values())
    assert "A100 GPU-hours" in seen.text and "0.7014 [0.6979, 0.7049]" in seen.text, "the first page has its table"
    assert {"training_curves", "audit"} <= set(" ".join(seen.listed).split())
