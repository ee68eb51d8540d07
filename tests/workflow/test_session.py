"""A run in a terminal: Ctrl-C, what it leaves, and the web report of a study and of its parts."""

import os
import pty
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from studies import bare_environment, command, lay_out, snakemake

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = lay_out(tmp_path_factory.mktemp("session") / "a study")
    (folder / "profiles").symlink_to("workflow/profiles")
    return folder


def in_terminal(folder: Path, *arguments: str) -> tuple[int, int]:
    """Start Snakemake in a terminal of its own, whose foreground group it is; its process id and the terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a test run in the background ignores
        os.execve(command()[0], command(*arguments), bare_environment())
    return pid, terminal


def read_on(terminal: int, until: str = "") -> str:
    """What the terminal shows until ``until`` matches, or the process ends."""
    shown = b""
    while not (until and re.search(until, shown.decode(errors="replace"))):
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the process closed it
            break
        if not part:
            break
        shown += part
    return shown.decode(errors="replace").replace("\r\n", "\n")


@pytest.mark.long
def test_ctrl_c_saves_states_shows_no_traceback_and_leaves_the_folder_free(folder):
    long = ("--config", "train={steps: 900000, checkpoint_every: 100000, state_every: 100000}")
    pid, terminal = in_terminal(folder, *long)
    before = read_on(terminal, r"\d+ % \| [^\n]*tiny-\S+ [\d,]+/900,000 loss \d")
    assert "/900,000 loss" in before, before
    while not [*folder.glob("results/cells/*/log.csv")]:
        time.sleep(0.1)
    os.write(terminal, b"\x03")
    after = read_on(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(terminal)
    assert code not in (0, -signal.SIGKILL)
    assert "stopped after step" in after and "its state is saved" in after
    assert "Traceback" not in after and "Terminating processes on user request" in after, after
    assert not [*folder.glob(".snakemake/locks/*")]
    again = snakemake(folder, "--dry-run", *long)
    assert again.returncode == 0 and "lock" not in again.stdout + again.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ("part", "made"),
    [
        (("--until", "documents"), "results/data/documents"),
        (("--batch", "all=1/30"), "results/cells/tiny-full-s1/config.yaml"),
        (("--", "results/data/download"), "results/data/download"),
    ],
)
def test_a_run_of_a_part_ends_well_without_a_web_report(tmp_path, part, made):
    folder = lay_out(tmp_path / "study")
    done = snakemake(folder, *part)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / made).exists() and not (folder / "results/report.html").exists()


@pytest.mark.long
def test_the_web_report_is_made_where_the_paper_is_newer_and_only_there(study, tmp_path):
    folder = shutil.copytree(study.parent / "untouched", tmp_path / "study", symlinks=True)
    page, paper = folder / "results/report.html", folder / "results/paper.pdf"
    page.unlink()
    one = ("--forcerun", "landing", "--until", "landing", "--rerun-triggers", "mtime")
    done = snakemake(folder, *one, "--config", "report={title: Another}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert page.stat().st_size > 100_000, "the whole study is there, and its page was missing"
    assert (folder / "results/summary.txt").read_text() in done.stderr
    made = page.stat().st_mtime_ns
    assert snakemake(folder, *one).returncode == 0
    assert page.stat().st_mtime_ns == made
    paper.unlink()
    page.unlink()
    assert snakemake(folder, *one).returncode == 0
    assert not page.exists(), "a part of the study is missing"
