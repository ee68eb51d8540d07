"""Around a Snakemake run: a mistake in one line, its cost at the start, the web report at the end."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError, refusal

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


def is_news(record: logging.LogRecord) -> bool:
    """Whether a message tells more than that jobs are chosen and begin: `quiet` silences that only with the errors."""
    return not str(record.msg).startswith(("Select jobs to execute", "Execute "))


def show_news_alone(handlers: Iterable[logging.Handler]) -> None:
    """Let each of ``handlers`` that writes to a terminal or pipe show news alone; files and plugins keep everything."""
    for handler in handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.addFilter(is_news)


def cost_of_run(cells: int, candidates: int, minutes: float | None) -> str:
    """The lines that a run begins with; ``minutes`` is None where only a GPU could tell."""
    searched = f" and {candidates} candidates of searches" if candidates else ""
    on_cpu = f"about {minutes or 0:.0f} min on 2 CPU cores, less where work is done"
    cost = "`make plan` tells their GPU hours" if minutes is None else on_cpu
    return (
        f"{cells} cell{'s' * (cells > 1)}{searched}: {cost}.\n"
        "Twice a minute a line tells how far the study is; results/logs holds the rest. Stop and go on at any time."
    )


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
