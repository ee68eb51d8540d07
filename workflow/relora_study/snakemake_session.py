"""Around a Snakemake run: a dead run's lock is freed, Ctrl-C ends in one line, the web report is made."""

import fcntl
import logging
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TextIO

from snakemake_interface_logger_plugins.common import LogEvent

NOTES = Path(".snakemake")
# Without the profiles of this folder and of the user, whose options are for runs.
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--profile", "none", "--workflow-profile", "none", "--cores", "1"]


def hold_folder() -> TextIO:
    """A hold on this folder for as long as this process lives; with no other, what a killed Snakemake locked is freed.

    Snakemake's own lock outlives its process. The system takes this one back, however the process ends.
    """
    NOTES.mkdir(exist_ok=True)
    hold = (NOTES / "alive").open("w")
    alone = False
    with suppress(OSError):  # another is alive, or the file system has no locks: Snakemake's own lock speaks
        fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = True
    with suppress(OSError):
        fcntl.flock(hold, fcntl.LOCK_SH)
    if alone and any((NOTES / "locks").glob("*")):
        unlock()
    return hold


def unlock() -> None:
    """Free what a dead Snakemake locked in this folder, by `snakemake --unlock`, which needs no rules for it."""
    subprocess.run([*SNAKEMAKE, "--snakefile", "/dev/null", "--unlock"], capture_output=True, check=False)


class TerminalFilter(logging.Filter):
    """What of Snakemake's messages a terminal shows; Snakemake's log file in .snakemake/log holds all.

    The scheduler says for each job that it selects and executes it, and no `quiet` silences this without the errors:
    one message has an event of its own, the other none. After Ctrl-C the jobs that end are no errors to report.
    """

    interrupted = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether ``record`` is shown."""
        scheduling = getattr(record, "event", None) == LogEvent.JOB_STARTED
        return not (self.interrupted or scheduling or str(record.msg).startswith("Select jobs to execute"))


def filter_terminal(handlers: Iterable[logging.Handler], terminal: TerminalFilter) -> None:
    """Add the filter to those of ``handlers`` that write to a stream and to no file; a plugin's stay as they are."""
    for handler in handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.addFilter(terminal)


def stop_on_interrupt(terminal: TerminalFilter) -> None:
    """At the first Ctrl-C, say what happens, and let Snakemake stop without a word of its own; a second is its own.

    A process that was started with the signal ignored, by `&` of a script's shell, goes on to ignore it.
    """
    if signal.getsignal(signal.SIGINT) != signal.default_int_handler:
        return

    def stop(number: int, frame: FrameType | None) -> None:
        terminal.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("Stopping: each training saves its state first.", file=sys.stderr, flush=True)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)


def make_web_report(snakefile: str, settings: Path, stylesheet: Path, page: Path, log: Path) -> bool:
    """Make ``page`` by `snakemake --report` from the study that ``settings`` holds whole; whether that went well.

    It is a command of its own: with `--report-after-run` Snakemake makes a report of a dry run as well, and fails where
    a run was asked for a part of the study.
    """
    report = ["--report", str(page), "--report-stylesheet", str(stylesheet)]
    command = [*SNAKEMAKE, "--snakefile", snakefile, "--configfile", str(settings), *report]
    with log.open("w", encoding="utf-8") as stream:
        return subprocess.run(command, stdout=stream, stderr=stream, check=False).returncode == 0
