"""Progress is said while jobs run, whatever is quiet, and the time that is left is an honest one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from relora_study.config import cells, check
from relora_study.config.settings import searches
from relora_study.cost.operations import (
    IMPORTS,
    NOMINAL_FLOPS_PER_SECOND,
    expected_rung_seconds,
    expected_seconds,
    search_flops,
    training_flops,
)
from relora_study.session.progress import SECONDS_BETWEEN_LINES, line, pace_of, seconds_left

ROOT = Path(__file__).parents[2]
PROFILE = yaml.safe_load((ROOT / "workflow/profiles/default/config.yaml").read_text())
SNAKEFILE = """
import sys
sys.path.insert(0, "{package}")
from relora_study.session.progress import Progress

progress = Progress(workflow, lambda rule, cell: 2.0, interval=0.3)

rule all:
    input: expand("{{cell}}.txt", cell=["one", "two", "three"])

rule make:
    output: "{{cell}}.txt"
    message: "Making {{wildcards.cell}}"
    shell: "sleep 2; touch {{output}}"

onstart:
    progress.start()

onsuccess:
    progress.stop()
"""


def test_jobs_done_running_and_to_come_are_said_in_a_log_file_too(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(package=ROOT / "workflow"))
    quiet = ["--quiet", *PROFILE["quiet"]]
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--workflow-profile", "none", *quiet]
    with (tmp_path / "log.txt").open("w") as log:
        assert subprocess.run(command, cwd=tmp_path, stdout=log, stderr=log).returncode == 0
    text = (tmp_path / "log.txt").read_text()
    lines = re.findall(r"^\d\d:\d\d:\d\d (\d) of 4 jobs done\. Running: (.*)\. Time left: (.*)\.$", text, re.MULTILINE)
    assert len(lines) >= 6, text
    assert lines[0][0] == "0" and {done for done, _, _ in lines} >= {"0", "2"}
    assert set(lines[0][1].split("; ")) < {"Making one", "Making two", "Making three"}
    assert {left for _, _, left in lines} == {"about 1 min"}


def test_a_line_comes_at_least_every_thirty_seconds():
    assert SECONDS_BETWEEN_LINES + 1 <= 30


@pytest.mark.parametrize(
    ("pace", "started", "waiting", "left"),
    [
        (1.0, [(100, 40)], [], 60),
        (2.0, [(100, 40)], [], 160),
        (1.0, [(100, 0), (100, 0)], [100, 100], 200),
        (1.0, [(1000, 0), (10, 0)], [], 1000),  # as long as the longest
        (1.0, [(10, 500)], [30], 30),  # later than expected: no time is negative
        (1.0, [], [30], 30),
    ],
)
def test_the_time_left_follows_what_ran(pace, started, waiting, left):
    assert seconds_left(pace, started, waiting) == left


def test_the_pace_is_that_of_the_jobs_that_ended():
    assert pace_of([]) == 1.0
    assert pace_of([(10, 20), (30, 100)]) == 3.0


def test_a_line_names_a_few_jobs_and_counts_the_others():
    text = line(14, 60, ["a", "b", "c", "d", "e"], 725)
    assert text.endswith("14 of 60 jobs done. Running: a; b; c and 2 more. Time left: about 12 min.")
    assert line(0, 1, [], None).endswith("0 of 1 jobs done. Running: none. Time left: not known yet.")
    assert line(0, 1, [], 36000).endswith("about 10 h.")


def test_a_long_training_is_expected_to_take_longer(raw):
    cell = next(iter(cells(check(raw, [])).values()))
    longer = cell.model_copy(update={"train": cell.train.model_copy(update={"steps": 2 * cell.train.steps})})
    times = [expected_seconds("pretrain", one) for one in (cell, longer)]
    assert times[1] - 5 == pytest.approx(2 * (times[0] - 5))
    assert 0 < expected_seconds("tokens", None) < expected_seconds("evaluate", cell) < times[0]


def test_a_search_is_expected_to_take_as_long_as_the_steps_that_it_trains(raw):
    """Four candidates to step 120, two on to 200, one on to 400, and its second seed to 400: 1,240 steps."""
    tuning = {"space": {"grid": {"learning_rate": [1e-3, 2e-3, 3e-3, 4e-3]}}, "rungs": [120, 200, 400]}
    data, chosen = {**raw["data"], "validation_fraction": 0.1}, {**raw["study"], "methods": ["full", "relora"]}
    study = check({**raw, "study": chosen, "tuning": tuning, "data": data}, [])
    search = searches(study)["tiny-full"]
    candidate = next(iter(search[1].values()))
    assert search_flops(search) == pytest.approx(training_flops(candidate) / candidate.train.steps * 1240)
    jobs = [4, 4, 8]
    in_all = sum(jobs[rung] * (expected_rung_seconds(search, rung) - IMPORTS) for rung in range(3))
    assert in_all == pytest.approx(2 * search_flops(search) / NOMINAL_FLOPS_PER_SECOND)
