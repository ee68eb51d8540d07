"""The real DAG on a study of seconds, as a user would run it, from a folder whose path has a space."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from archives import faults
from browser import look_at
from pypdf import PdfReader
from studies import LATE, planned, snakemake, unpacked

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.end_to_end


def test_everything_is_there(study):
    results = study / "results"
    assert len(PdfReader(results / "paper.pdf").pages) >= 2
    assert (results / "report.html").stat().st_size > 100_000
    assert "Counted on the same tokens: unigram" in (results / "summary.txt").read_text()
    log = pd.read_csv(results / "cells/tiny-relora_released-s1/log.csv")
    assert log.step.tolist() == list(range(1, 21))
    assert (log.adapter_gradient_norm[log.step <= 9] == 0).all()
    evaluation = pd.read_csv(results / "cells/tiny-full-s1/evaluation.csv")
    assert set(evaluation.step) == {0, 8, 16, 20}
    for figure in (results / "figures").glob("*.png"):
        assert figure.stat().st_size > 5_000


def test_the_checklists_agree_with_the_files(study):
    results = study / "results"
    page = (results / "reproducibility.md").read_text()
    cells = sorted((results / "cells").iterdir())
    seconds = sum(pd.read_csv(cell / "timing.csv").seconds.sum() for cell in cells)
    steps = sum(pd.read_csv(cell / "evaluation.csv").step.nunique() for cell in cells)
    assert f"- {len(cells)} cells trained, once each, and {steps} checkpoints were evaluated." in page
    assert "- There is one seed (1), so no interval over seeds exists." in page
    assert (
        f"- Trainings took {seconds / 60:,.1f} minutes in all" in page
        and "Every run below has a recorded time." in page
    )
    manifest = json.loads((results / "data/tokens/manifest.json").read_text())
    for part in ("train", "held_out"):
        counts = [rf"{manifest[part][key]:,} +\|" for key in ("documents", "tokens", "bytes")]
        assert re.search(rf"\| {part.replace('_', ' ')} +\| {' '.join(counts)} {manifest[part]['sha256'][:12]}", page)
    for cell in cells:
        assert json.loads((cell / "manifest.json").read_text())["final_sha256"][:12] in page
    assert "The corpus is a folder of the user's own, `corpus`." in page and "No cell trained on a GPU." in page
    named = re.findall(r"`([^`{}]+)`", "".join(line for line in page.splitlines() if line.startswith("Files: ")))
    missing = [name for name in named if not any(place.glob(name.rstrip("/")) for place in (results, ROOT))]
    assert len(named) > 30 and missing == []


def test_the_web_report_opens_in_a_browser(study, tmp_path):
    seen = look_at(study / "results/report.html", tmp_path / "profile", ROOT / "results/tests/report.png")
    assert seen.top >= 0, "the title can be seen"
    assert seen.complaints == [] and seen.broken == []
    assert seen.images == len(list((study / "results/figures").glob("*.png"))) > 15
    assert all(len(caption) > 30 for caption in seen.captions.values())
    assert (
        "2 trainings of" in seen.text
        and "held-out loss than full rank" in seen.text
        and "Versions: python" in seen.text
    )
    for listed in (
        "the paper",
        "every curve",
        "All figures",
        "Gap to full rank over training",
        "All tables",
        "checklists",
    ):
        assert any(listed in row for row in seen.listed), listed


def accept(study):
    """Take the results for made from the settings, code and files of now."""
    for how in (("--until", "settings"), ("--touch",)):
        assert snakemake(study, *how).returncode == 0


def test_a_second_run_does_nothing(study):
    before = (study / "results/report.html").stat().st_mtime_ns
    done = snakemake(study)
    assert "Nothing to be done" in done.stderr
    assert (study / "results/summary.txt").read_text() in done.stderr, "the outcome is told again"
    assert (study / "results/report.html").stat().st_mtime_ns == before


def test_plot_code_reruns_the_report_alone(study):
    code = study / "workflow/relora_study/report/style.py"
    code.write_text(code.read_text() + "\n# touched\n")
    assert set(planned(study)) == LATE | {"settings"}
    assert planned(study, "results/figures/resets.pdf") == {"settings": 1, "figure": 1, "total": 2}


@pytest.mark.long
def test_a_plot_setting_reruns_the_report_alone(study):
    accept(study)
    jobs = planned(study, "--config", "report={title: Another title}")
    assert {"paper", "settings"} <= set(jobs) <= LATE | {"settings"}


def test_a_seed_trains_only_its_own_cells(study):
    jobs = planned(study, "--config", "study={seeds: [1, 2]}")
    assert (jobs["pretrain"], jobs["evaluate"], jobs["dynamics"]) == (2, 2, 2)
    assert not {"tokens", "documents", "tokenizer"} & set(jobs)


def test_a_deleted_cell_is_trained_again(study):
    shutil.move(study / "results/cells/tiny-full-s1", study / "aside")
    assert planned(study)["pretrain"] == 1
    shutil.move(study / "aside", study / "results/cells/tiny-full-s1")


def test_a_typo_stops_before_any_job(study):
    done = snakemake(study, "--config", "train={stepz: 5}")
    assert done.returncode != 0
    assert "error: train.stepz = 5: unknown key; see docs/configuration.md" in done.stderr
    assert "(--config)" in done.stderr
    assert "Traceback" not in done.stderr and 'File "' not in done.stderr


@pytest.mark.long
def test_another_user_remakes_every_table_and_figure_from_the_archive_alone(study, tmp_path):
    assert snakemake(study, "--", "archive").returncode == 0
    clone = unpacked(study / "results/archive.tar.gz", tmp_path / "clone")
    assert faults(clone / "results", "REQUIRED") == [], "a research object"
    shared = ("--configfile", "results/settings/whole.yaml")  # of itself: this clone knows no other
    assert planned(clone, *shared) == {}, "nothing is trained, evaluated or read again"
    again = (*shared, "--forcerun", "figure", "table", "paper")
    assert set(planned(clone, *again)) <= LATE
    made = [file for place in ("figures", "tables") for file in sorted((clone / "results" / place).iterdir())]
    assert len(made) > 30
    for file in made:
        file.unlink()
    done = snakemake(clone, *again)
    assert done.returncode == 0, done.stdout + done.stderr
    for file in [*made, clone / "results/paper.pdf"]:
        assert file.read_bytes() == (study / file.relative_to(clone)).read_bytes(), file.name
    assert not list(clone.glob("results/cells/*/checkpoints"))


def test_who_ran_the_study_is_a_matter_of_the_archive_and_of_the_page_that_reads_the_whole_configuration(study):
    accept(study)
    named = ("--config", "sharing={run_by: Josiah Carberry, licence: CC-BY-4.0}")
    page = {"settings", "reproducibility"}
    assert planned(study, *named).keys() - {"all", "total"} == page
    assert planned(study, *named, "--", "archive").keys() - {"total"} == page | {"archive"}


def test_what_the_user_adds_to_the_corpus_is_read(study):
    added = study / "corpus/letters/added.txt"
    added.write_text("another letter")
    assert planned(study)["documents"] == 1
    added.unlink()


def test_the_models_code_is_measured_with_and_not_trained_with_again(study):
    accept(study)
    code = study / "workflow/relora_study/model/build.py"
    code.write_text(code.read_text() + "\n# touched\n")
    jobs = planned(study)
    assert (jobs["evaluate"], jobs["dynamics"]) == (2, 2) and "pretrain" not in jobs
    accept(study)
