"""Wrap a Snakemake run: free the lock of a dead run, end Ctrl-C in one line, and make the web report."""

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
# No profile applies: the options in them are for runs of the study.
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--profile", "none", "--workflow-profile", "none", "--cores", "1"]


def hold_folder() -> TextIO:
    """Hold this folder while this process lives; if no other process holds it, free the lock of a killed Snakemake.

    Snakemake's lock outlives its process. The operating system takes this hold back, however the process ends.
    """
    NOTES.mkdir(exist_ok=True)
    hold = (NOTES / "alive").open("w")
    alone = False
    with suppress(OSError):  # another run is alive, or the file system has no locks: Snakemake's lock decides
        fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = True
    with suppress(OSError):
        fcntl.flock(hold, fcntl.LOCK_SH)
    if alone and any((NOTES / "locks").glob("*")):
        unlock()
    return hold


def unlock() -> None:
    """Free the lock that a dead Snakemake left in this folder, by `snakemake --unlock` with an empty Snakefile."""
    subprocess.run([*SNAKEMAKE, "--snakefile", "/dev/null", "--unlock"], capture_output=True, check=False)


class TerminalFilter(logging.Filter):
    """Hides noise from the terminal; Snakemake's log file in .snakemake/log keeps every message.

    The scheduler prints two messages for each job that it starts, and every `quiet` that silences them silences errors,
    too. One message has a log event and the other only its text. After Ctrl-C, jobs that end are not errors.
    """

    interrupted = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the terminal shows ``record``."""
        scheduling = getattr(record, "event", None) == LogEvent.JOB_STARTED
        return not (self.interrupted or scheduling or str(record.msg).startswith("Select jobs to execute"))


def filter_terminal(handlers: Iterable[logging.Handler], terminal: TerminalFilter) -> None:
    """Add the filter to the ``handlers`` that write to a stream. Handlers of files and plugins stay as they are."""
    for handler in handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.addFilter(terminal)


def stop_on_interrupt(terminal: TerminalFilter) -> None:
    """At the first Ctrl-C, say that trainings save their state, and let Snakemake stop silently.

    A second Ctrl-C reaches Snakemake. A process that started with the signal ignored (`&` in a
    script) keeps ignoring it.
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
    """Make ``page`` by `snakemake --report` for the whole study in ``settings``. Returns whether it succeeded.

    The report needs a separate command: with `--report-after-run`, Snakemake also reports on a dry run, and fails if
    the run makes only a part of the study.
    """
    report = ["--report", str(page), "--report-stylesheet", str(stylesheet)]
    command = [*SNAKEMAKE, "--snakefile", snakefile, "--configfile", str(settings), *report]
    with log.open("w", encoding="utf-8") as stream:
        return subprocess.run(command, stdout=stream, stderr=stream, check=False).returncode == 0
