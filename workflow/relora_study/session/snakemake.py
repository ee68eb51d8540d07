"""Around a Snakemake run: a dead run's lock is freed, Ctrl-C ends in one line, the web report is made."""

import fcntl
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TextIO

from snakemake_interface_logger_plugins.common import LogEvent

from ..errors import UserError, refusal

NOTES = Path(".snakemake")
# A run's profiles, of this folder and of the user, hold options for runs alone.
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--profile", "none", "--workflow-profile", "none", "--cores", "1"]


@contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """End in one line at a user's mistake or at a refusal of the disk; Snakemake's own error adds Snakefile lines."""
    try:
        yield
    except OSError as error:
        sys.exit(f"error: {refusal(error)}")
    except UserError as error:
        sys.exit(f"error: {error}")


def hold_folder() -> TextIO:
    """Hold this folder while this process lives. Where no other process holds it, free a dead Snakemake's lock.

    Snakemake's lock outlives a process that was killed. The hold is a lock of the system, which ends with the process.
    """
    NOTES.mkdir(exist_ok=True)
    hold = (NOTES / "alive").open("w")
    alone = False
    with suppress(OSError):  # another process holds the folder, or the disk has no locks: Snakemake's lock decides
        fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = True
    with suppress(OSError):
        fcntl.flock(hold, fcntl.LOCK_SH)
    if alone and any((NOTES / "locks").glob("*")):
        unlock()
    return hold


def unlock() -> None:
    """Free the lock of a dead Snakemake by `snakemake --unlock`, which needs no rules."""
    subprocess.run([*SNAKEMAKE, "--snakefile", "/dev/null", "--unlock"], capture_output=True, check=False)


def cost_of_run(cells: int, candidates: int, minutes: float | None) -> str:
    """The lines that a run begins with; ``minutes`` is None where only a GPU could tell."""
    searched = f" and {candidates} candidates of searches" if candidates else ""
    on_cpu = f"about {minutes or 0:.0f} min on 2 CPU cores, less where work is done"
    cost = "`make plan` tells their GPU hours" if minutes is None else on_cpu
    return (
        f"{cells} cell{'s' * (cells > 1)}{searched}: {cost}.\n"
        "Twice a minute a line tells how far the study is; results/logs holds the rest. Stop and go on at any time."
    )


class TerminalFilter(logging.Filter):
    """Keeps two kinds of Snakemake's messages from the terminal; the log file in .snakemake/log holds every message.

    The scheduler announces each job twice, and `quiet` silences that only together with the errors. One of the two
    messages has an event, the other is known by its text. After Ctrl-C, a job that ends is no error.
    """

    interrupted = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the terminal shows ``record``."""
        scheduling = getattr(record, "event", None) == LogEvent.JOB_STARTED
        return not (self.interrupted or scheduling or str(record.msg).startswith("Select jobs to execute"))


def filter_terminal(handlers: Iterable[logging.Handler], terminal: TerminalFilter) -> None:
    """Add the filter to each of ``handlers`` that writes to a terminal or pipe, not to files' or plugins' handlers."""
    for handler in handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.addFilter(terminal)


def stop_on_interrupt(terminal: TerminalFilter) -> None:
    """Make the first Ctrl-C end the run with one line of ours; the second acts as Snakemake defines it.

    A script's `&` starts a process that ignores the signal. Such a process goes on to ignore it.
    """
    if signal.getsignal(signal.SIGINT) != signal.default_int_handler:
        return

    def stop(number: int, frame: FrameType | None) -> None:
        terminal.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("Stopping: each training saves its state first.", file=sys.stderr, flush=True)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)


def web_report_is_due(targets: Iterable[Path], paper: Path, page: Path) -> bool:
    """Whether every target of the study exists, and ``page`` is missing or older than ``paper``."""
    if not all(file.exists() for file in targets):
        return False
    return not page.exists() or page.stat().st_mtime < paper.stat().st_mtime


def make_web_report(snakefile: str, settings: Path, stylesheet: Path, page: Path, log: Path) -> bool:
    """Make ``page`` by `snakemake --report`; whether Snakemake succeeded. ``settings`` holds the whole study.

    A command of its own makes it: `--report-after-run` would make one after a dry run too, and would fail after a run
    of a part of the study.
    """
    # Snakemake expands variables in the stylesheet's path alone, and knows no way to write a plain dollar.
    style, environment = str(stylesheet).replace("$", "${A_DOLLAR}"), os.environ | {"A_DOLLAR": "$"}
    report = ["--report", str(page), "--report-stylesheet", style]
    command = [*SNAKEMAKE, "--snakefile", snakefile, "--configfile", str(settings), *report]
    with log.open("w", encoding="utf-8") as stream:
        return subprocess.run(command, stdout=stream, stderr=stream, env=environment, check=False).returncode == 0
