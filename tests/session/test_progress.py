"""Progress is said while jobs run, whatever is quiet, and the time that is left is an honest one."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from relora_study.config import cells, check
from relora_study.config.settings import searches
from relora_study.cost.estimates import (
    IMPORTS,
    NOMINAL_FLOPS_PER_SECOND,
    expected_rung_seconds,
    expected_seconds,
    search_flops,
    training_flops,
)
from relora_study.session.progress import SECONDS_BETWEEN_LINES, last_step, line, seconds_left

ROOT = Path(__file__).parents[2]
PROFILE = yaml.safe_load((ROOT / "workflow/profiles/default/config.yaml").read_text())
SNAKEFILE = """
import sys
sys.path.insert(0, "{package}")
from relora_study.session.progress import Progress, Training

def training(rule, wildcards):
    return Training(30, 60, 5.551) if dict(wildcards).get("cell") == "one" else None

progress = Progress(workflow, lambda rule, cell: 2.0, training, interval=0.3)

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


def test_work_done_losses_and_time_left_are_said_in_a_log_file_too(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(package=ROOT / "workflow"))
    quiet = ["--quiet", *PROFILE["quiet"]]
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--workflow-profile", "none", *quiet]
    with (tmp_path / "log.txt").open("w") as log:
        assert subprocess.run(command, cwd=tmp_path, stdout=log, stderr=log).returncode == 0
    text = (tmp_path / "log.txt").read_text()
    lines = re.findall(r"^\d\d:\d\d:\d\d  (\d+) % \| (.*) \| (.*)$", text, re.MULTILINE)
    assert len(lines) >= 6, text
    shares = [int(share) for share, _, _ in lines]
    assert shares == sorted(shares) and shares[0] < 40 < shares[-1]
    assert set(lines[0][1].split(" | ")) < {"one 30/60 loss 5.55", "Making two", "Making three"}
    assert any("one 30/60 loss 5.55" in running for _, running, _ in lines)
    assert {left for _, _, left in lines} == {"1 min left"}


def test_a_line_comes_at_least_every_thirty_seconds():
    assert SECONDS_BETWEEN_LINES + 1 <= 30


@pytest.mark.parametrize(
    ("done", "total", "longest", "elapsed", "widest", "left"),
    [
        (0, 200, 100, 0, 2, 100),  # as expected
        (60, 240, 60, 60, 2, 180 / (180 / 120)),  # half as fast for as long as the estimates count
        (400, 500, 100, 200, 2, 100 * 2 / (520 / 260)),  # one job is left, which two cores cannot share
    ],
)
def test_the_time_left_follows_the_work_done(done, total, longest, elapsed, widest, left):
    assert seconds_left(done, total, longest, elapsed, widest) == pytest.approx(left)


def test_untrusted_estimates_give_no_time_before_work_was_done():
    assert seconds_left(0, 100, 10, 0, 1, prior=0) is None
    assert seconds_left(50, 100, 10, 100, 1, prior=0) == 100


@pytest.mark.parametrize("slower", [0.5, 1.0, 2.0, 4.0])
def test_the_time_left_does_not_jump(slower):
    """Two cores, jobs of 5 and 100 expected seconds that take ``slower`` times as long, a look each 25 seconds."""
    jobs, ends, at = [5] * 20 + [100] * 8 + [5] * 60, [0.0, 0.0], []
    for work in jobs:
        core = min((0, 1), key=lambda one: ends[one])
        at.append((ends[core], ends[core] + work * slower, work))
        ends[core] += work * slower
    said = []
    for now in range(25, int(max(ends)), 25):
        shares = [(work, min(1.0, max(0.0, (now - start) / (end - start)))) for start, end, work in at]
        running = [work * (1 - share) for work, share in shares if 0 < share < 1]
        done = sum(work * share for work, share in shares)
        left = seconds_left(done, sum(jobs), max(running, default=0), now, 2)
        said.append(now + left)  # when the run will have ended
    jumps = [abs(two / one - 1) for one, two in itertools.pairwise(said)]
    assert max(jumps) < 0.25 and said[-1] == pytest.approx(max(ends), rel=0.15)


def test_a_line_names_a_few_jobs_and_counts_the_others():
    text = line(0.312, ["a", "b", "c", "d", "e"], 725)
    assert text.endswith("  31 % | a | b | c | 2 more | 12 min left")
    assert line(0.0, [], None).endswith("  0 % | time left not known yet")
    assert line(0.0, [], 36000).endswith("10 h left")


def test_the_last_whole_row_of_a_log_is_read(tmp_path):
    log = tmp_path / "log.csv"
    assert last_step(log) is None
    log.write_text("step,tokens,loss\n")
    assert last_step(log) is None, "a header alone"
    log.write_text(
        "step,tokens,loss\n" + "".join(f"{step},1024,{8 - step / 100}\n" for step in range(1, 300)) + "300,10"
    )
    assert last_step(log) == (299, 5.01), "the row that is being written is not read"


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
