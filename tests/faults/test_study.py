"""The real DAG through kills and at another number of jobs, against one that nobody disturbed: the same bytes."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from studies import bare_environment, command, lay_out, snakemake

pytestmark = pytest.mark.end_to_end

# What holds times, by results/README.md; and the page that Snakemake makes, which tells when each job ran.
TIMED = (
    "timing.csv",
    "settings/files-",
    "-s1/manifest.json",
    "-s42/manifest.json",
    "cost.",
    "benchmarks/",
    "logs/",
    "landing.rst",
    "summary.md",
    "explore.html",
    "figures.html",
    "tables.html",
    "reproducibility.",
    "report.html",
)
TIMED_ROW = re.compile(rb"gpu.?_hours")


def contents(results: Path) -> dict[str, bytes]:
    """Every file of a study that must be the same in all runs of it, by its path."""
    paths = {str(path.relative_to(results)): path for path in results.rglob("*") if path.is_file()}
    untimed = {name: path for name, path in paths.items() if not any(part in name for part in TIMED)}
    return {name: _without_times(name, path.read_bytes()) for name, path in untimed.items()}


def _without_times(name: str, content: bytes) -> bytes:
    """``content``, less the row of hours where there is one, which also sets the width of a column of Markdown."""
    if "published_vs_replicated" not in name:
        return content
    rows = [re.sub(rb"[ -]+", b" ", row) for row in content.split(b"\n") if not TIMED_ROW.search(row)]
    return b"\n".join(rows)


def differing(first: Path, second: Path) -> list[str]:
    """The files that one of two studies lacks, or holds with other bytes."""
    one, two = contents(first), contents(second)
    return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": bare_environment()}
    return subprocess.Popen(command(*arguments), cwd=folder, **options)


def wait_for(folder: Path, pattern: str, process: subprocess.Popen) -> None:
    while not [*folder.glob(pattern)]:
        assert process.poll() is None, f"ended before {pattern}: {process.stdout.read()}"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory):
    """The tiny study, four jobs at a time, its Snakemake killed twice; what a second one said while the first ran."""
    folder = lay_out(tmp_path_factory.mktemp("disturbed") / "elsewhere")
    (folder / "profiles").symlink_to("workflow/profiles")  # which reruns what was cut off
    said = []
    for pattern in ("results/cells/*/log.csv", "results/cells/*/evaluation/*.csv"):
        first = start(folder, "--cores", "4")
        wait_for(folder, pattern, first)
        wait_for(folder, ".snakemake/locks/*", first)  # a job of the run before may have left what the pattern names
        if not said:
            second = snakemake(folder, "--cores", "4")
            said += [second.returncode, second.stdout + second.stderr]
            assert first.poll() is None, "the first goes on"
        first.send_signal(signal.SIGKILL)  # it alone: its jobs live on, and the next run meets them
        first.wait()
        left = snakemake(folder, "--cores", "4")
        assert left.returncode != 0 and "--unlock" in left.stdout + left.stderr, "Snakemake names the way out"
        assert snakemake(folder, "--unlock").returncode == 0
    done = snakemake(folder, "--cores", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, said


@pytest.mark.long
def test_a_killed_snakemake_run_again_ends_as_one_never_stopped(study, disturbed):
    """And from another folder, with other numbers of jobs at a time: CSVs, figures, PDF and weights, byte for byte."""
    first, second = study.parent / "untouched/results", disturbed[0] / "results"
    assert differing(first, second) == []
    kept = contents(second)
    assert {"paper.pdf", "tables/final_results.csv", "cells/tiny-full-s1/dynamics.csv"} <= kept.keys()
    assert sum(name.startswith("figures/") for name in kept) > 10
    assert not [name for name in kept if ".partial" in name]


@pytest.mark.long
def test_a_second_snakemake_on_the_folder_is_refused(disturbed):
    code, said = disturbed[1]
    assert code != 0 and "Directory cannot be locked" in said and "Traceback" not in said


@pytest.mark.long
def test_no_job_tries_the_network(study, disturbed):
    assert not (study / "network.txt").exists() and not (disturbed[0] / "network.txt").exists()


@pytest.mark.parametrize(
    "code",
    [
        "socket.create_connection(('127.0.0.1', 9))",
        "socket.socket(socket.AF_INET).connect(('127.0.0.1', 9))",
        "urllib.request.urlopen('http://127.0.0.1:9')",
    ],
)
def test_a_job_that_tried_the_network_would_fail_and_leave_a_note(tmp_path, code):
    folder = lay_out(tmp_path / "study")
    environment = os.environ | {"PYTHONPATH": str(folder / "workflow")}
    command = [sys.executable, "-c", f"import socket, urllib.request; {code}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "no network in this test" in done.stderr and "127.0.0.1" in (folder / "network.txt").read_text()


def test_the_number_of_threads_is_recorded(study):
    assert '"threads": 1' in (study.parent / "untouched/results/cells/tiny-full-s1/manifest.json").read_text()


STAGES = {
    "evaluation.csv": ("evaluate cell --settings results/settings/measurement.yaml --tasks results/evaluation"),
    "dynamics.csv": "dynamics cell --settings results/settings/dynamics.yaml",
}


@pytest.mark.long
@pytest.mark.parametrize("output", STAGES)
def test_a_job_killed_midway_is_finished_by_the_next(study, tmp_path, output):
    stage, whole = output.removesuffix(".csv"), study.parent / "untouched/results/cells/tiny-relora_released-s1"
    shutil.copytree(whole, tmp_path / "cell")
    (tmp_path / "cell" / output).unlink()
    shutil.rmtree(tmp_path / "cell" / stage)
    place = tmp_path / "cell" / output
    arguments = [sys.executable, "-m", *f"relora_study.{STAGES[output]}".split()]
    arguments += ["--cell", str(tmp_path / "cell"), "--data", "results/data", "--threads", "1", "--output", str(place)]
    environment = os.environ | {"PYTHONPATH": str(study / "workflow")}
    process = subprocess.Popen(arguments, cwd=study, env=environment, stderr=subprocess.PIPE, text=True)
    while not [*(tmp_path / "cell").glob(f"{stage}/step-000000-*.csv")]:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not place.exists(), "it was killed before its end"
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "cell" / stage).glob("step-*.csv")}
    assert subprocess.run(arguments, cwd=study, env=environment).returncode == 0
    assert place.read_bytes() == (whole / output).read_bytes()
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items()), "what was measured is kept"


def test_a_damaged_checkpoint_stops_its_readers_in_one_line(study, commands, tmp_path):
    shutil.copytree(study.parent / "untouched/results/cells/tiny-full-s1", tmp_path / "cell")
    file = tmp_path / "cell/checkpoints/step-000008/model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    arguments = [*f"relora_study.{STAGES['dynamics.csv']}".split(), "--cell", tmp_path / "cell"]
    done = commands.run([*arguments, "--data", "results/data", "--output", tmp_path / "out.csv"], cwd=study)
    assert done.returncode == 1 and not (tmp_path / "out.csv").exists()
    assert "step-000008 is missing or damaged; delete" in done.stderr and "Traceback" not in done.stderr


def test_results_of_another_schema_are_refused_before_any_job(study, tmp_path):
    folder = lay_out(tmp_path / "study")
    cell = folder / "results/cells/tiny-full-s1"
    cell.mkdir(parents=True)
    (cell / "manifest.json").write_text("{}")
    for mark in (None, "0"):
        if mark:
            (folder / "results/schema_version").write_text(mark)
        done = snakemake(folder, "--dry-run")
        assert done.returncode != 0 and "Traceback" not in done.stderr
        assert f"results/ was made with schema version {mark or 'none'}, and this workflow" in done.stderr
        assert "mv results" in done.stderr and (cell / "manifest.json").read_text() == "{}"
    assert (study / "results/schema_version").read_text() == "1\n"


@pytest.mark.slow
def test_the_default_study_twice_from_scratch_gives_the_same_bytes(tmp_path):
    """One job at a time, then four at a time."""
    folders = [lay_out(tmp_path / name) for name in ("one", "four")]
    for folder, cores in zip(folders, ("1", "4"), strict=True):
        (folder / "tests/tiny.yaml").write_text("{}")  # the overlay of every command here: the default study
        (folder / "workflow/sitecustomize.py").unlink()  # the corpus comes from the network
        done = snakemake(folder, "--cores", cores)
        assert done.returncode == 0, done.stdout + done.stderr
    assert differing(folders[0] / "results", folders[1] / "results") == []
