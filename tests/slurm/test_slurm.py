"""`make test-slurm`: a small study through the real profile, on a SLURM that this machine runs meanwhile."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from relora_study.config import Cell, read_section
from studies import write_yaml

ROOT = Path(__file__).parents[2]
CLUSTER = Path(__file__).with_name("cluster.sh")
ABSENT = 69
CELLS = ["tiny-full-s1", "tiny-relora_released-s1"]
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes with a GPU each, until the module's tests end, however they end."""
    state = tmp_path_factory.mktemp("slurm")
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("told to stop"))
    try:
        up = subprocess.run([CLUSTER, "up", state], stderr=subprocess.PIPE, text=True)
        if up.returncode == ABSENT and not os.environ.get("CI"):
            pytest.skip(up.stderr)
        assert up.returncode == 0, up.stderr
        yield state
    finally:
        subprocess.run([CLUSTER, "down", state], check=True)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A copy of the project with a corpus, where the tests run Snakemake."""
    folder = tmp_path_factory.mktemp("study")
    for name in ("Snakefile", "config.yaml", "workflow", "envs", "resources", "paper", "profiles", "tests/slurm"):
        source, target = ROOT / name, folder / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, target)
    words = random.Random(0)
    vocabulary = ["the", "a", "minister", "doctor", "report", "said", "that", "people", "new", "old", "city", "law"]
    for place in (folder / "corpus" / domain / f"{number}.txt" for domain in "ab" for number in range(60)):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(" ".join(words.choices(vocabulary, k=120)))
    return folder


def command(*arguments: str) -> list[str]:
    """Snakemake under `timeout`, because without SLURM's answers it would wait for ever.

    A quiet machine needs a tenth of that time; `.ci/run` runs other tests meanwhile.
    """
    own = ["--profile", "workflow/profiles/slurm", "--configfile", "tests/slurm/study.yaml"]
    # What this SLURM lacks or makes needless: accounting, patience, a partition for GPUs, nodes of eight cores.
    own += [
        "--slurm-status-command",
        "squeue",
        "--slurm-init-seconds-before-status-checks",
        "4",
        "--latency-wait",
        "10",
    ]
    own += ["--set-resources", "pretrain:gpu=1", "--set-threads", "tokenizer=2", "tokens=2"]
    return ["timeout", "-k", "10", "1200", sys.executable, "-m", "snakemake", *own, *arguments]


def jobs() -> list[dict[str, str]]:
    """What SLURM knows of every job: it forgets none within the hour."""
    text = subprocess.run(["scontrol", "show", "job", "--oneliner"], capture_output=True, text=True).stdout
    return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in text.splitlines() if "Comment=rule_" in line]


def pretrainings(cell: str) -> list[dict[str, str]]:
    return [job for job in jobs() if job["Comment"] == f"rule_pretrain_wildcards_{cell}"]


def final_hash(folder: Path) -> str:
    return json.loads((folder / "manifest.json").read_text())["final_sha256"]


def trained_alone(study: Path, cells: list[str]) -> tuple[list[str], float]:
    """The final hashes of ``cells`` trained side by side without SLURM and never cut; the fewest seconds one took."""
    folders, processes = [study / "uncut" / cell for cell in cells], []
    for folder in folders:
        settings = read_section(Cell, study / "results/cells" / folder.name / "config.yaml").model_dump()
        settings["train"]["time_limit"] = None
        write_yaml(folder / "config.yaml", settings)
        places = ["--config", folder / "config.yaml", "--tokens", study / "results/data/tokens", "--threads", "1"]
        train = [sys.executable, "-m", "relora_study.train", "cell", *places]
        processes.append(subprocess.Popen(train, env=ENVIRONMENT | {"PYTHONPATH": str(study / "workflow")}))
    assert [process.wait(timeout=900) for process in processes] == [0] * len(cells)
    seconds = [pd.read_csv(folder / "timing.csv").seconds.sum() for folder in folders]
    return [final_hash(folder) for folder in folders], min(seconds)


def test_a_study_whose_cells_are_cut_by_their_time_limit_ends_as_an_uncut_one(cluster, study):
    began = time.monotonic()
    settings = [f"results/cells/{cell}/config.yaml" for cell in CELLS]
    first = subprocess.run(command("--", *settings, "results/data/tokens"), cwd=study, env=ENVIRONMENT, text=True)
    assert first.returncode == 0
    hashes, seconds = trained_alone(study, CELLS)
    limit = f"train={{time_limit: {0.5 * seconds / 60}}}"
    figure = "results/figures/training_curves.pdf"
    assert subprocess.run(command("--config", limit, "--", figure), cwd=study, env=ENVIRONMENT).returncode == 0
    cut: dict[str, list[str]] = {}
    for cell, uncut in zip(CELLS, hashes, strict=True):
        *cut[cell], last = [job["ExitCode"] for job in pretrainings(cell)]
        assert set(cut[cell]) <= {"1:0"} and last == "0:0"
        assert final_hash(study / "results/cells" / cell) == uncut
        assert {job["TresPerJob"] for job in pretrainings(cell)} == {"gres:gpu:1"}
    assert any(cut.values()), "no cell was cut, or its next try was not a job of SLURM's"
    print(f"\n{Counter(job['Comment'].split('_')[1] for job in jobs())} in {time.monotonic() - began:.0f} s")


def test_a_requeued_training_saves_itself_and_ends_as_an_uncut_one(cluster, study):
    """What preemption does in REQUEUE mode, by hand: every process gets SIGTERM, and the job goes back to the queue."""
    cell = "tiny-full-s2"
    folder = study / "results/cells" / cell
    changes = ["study={seeds: [2]}", "train={steps: 2000}"]
    arguments = ["--config", *changes, "--", str((folder / "manifest.json").relative_to(study))]
    with subprocess.Popen(command(*arguments), cwd=study, env=ENVIRONMENT) as running:
        wait_until(lambda: (folder / "log.csv").exists() and (folder / "log.csv").read_text().count("\n") > 100)
        (job,) = pretrainings(cell)
        subprocess.run(["scontrol", "requeue", job["JobId"]], check=True)
        wait_until(lambda: pretrainings(cell)[0]["JobState"] == "PENDING")
        saved = [int(place.name.removeprefix("step-")) for place in (folder / "state").glob("step-*")]
        subprocess.run(["scontrol", "update", f"JobId={job['JobId']}", "StartTime=now"], check=True)
    (job,) = pretrainings(cell)
    assert running.returncode == 0 and job["Restarts"] == "1" and job["ExitCode"] == "0:0"
    assert any(step % 500 for step in saved), f"states at {saved}: the last step before the signal was not saved"
    assert [final_hash(folder)] == trained_alone(study, [cell])[0]


def test_a_job_runs_where_the_interpreters_path_has_a_space(cluster, study, tmp_path):
    """In a folder and a venv whose paths have a space: the plugin writes the interpreter into its jobs unquoted."""
    folder = shutil.copytree(
        study, tmp_path / "a project", ignore=shutil.ignore_patterns("results", ".snakemake", "uncut")
    )
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    (place,) = (folder / ".venv/lib").glob("python*/site-packages")
    (place / "installed.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    python, target = folder / ".venv/bin/python", "results/data/documents"
    run = [str(python) if word == sys.executable else word for word in command("--retries", "0", "--", target)]
    environment = ENVIRONMENT | {"PATH": f"{python.parent}:/usr/bin:/bin"}
    assert subprocess.run(run, cwd=folder, env=environment).returncode == 0
    assert (folder / target / "train.parquet").exists() and "rule_documents" in {job["Comment"] for job in jobs()}


def wait_until(true, seconds: int = 600) -> None:
    for _ in range(4 * seconds):
        if true():
            return
        time.sleep(0.25)
    raise AssertionError(f"not within {seconds} seconds")


def test_a_training_runs_on_two_nodes(cluster, study):
    cell = "tiny-full-s3"
    changes = ["study={seeds: [3]}", "train={steps: 200}", "runtime={processes: 2, nodes: 2}"]
    target = f"results/cells/{cell}/manifest.json"
    run = command("--set-resources", "pretrain:gpu=2", "--config", *changes, "--", target)
    assert subprocess.run(run, cwd=study, env=ENVIRONMENT).returncode == 0
    (job,) = pretrainings(cell)
    assert job["NodeList"] == "node[1-2]" and job["NumTasks"] == "2" and job["TresPerJob"] == "gres:gpu:2"
    assert json.loads((study / target).read_text())["processes"] == 2
