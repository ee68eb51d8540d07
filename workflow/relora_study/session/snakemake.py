"""Around a Snakemake run: the cost at the start, how jobs start, the web report at the end."""

import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from ..config import Runtime

# A run's profiles, of this folder and of the user, hold options for runs alone.
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--profile", "none", "--workflow-profile", "none", "--cores", "1"]


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


SHUTDOWN_SECONDS = 300  # that torchrun leaves its processes after a signal; SLURM's own limits come earlier
STOP_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"  # that torchrun hands on: its default, and the last one


def lead_jobs_to(folder: Path) -> None:
    """Set the environment so that a job imports the package from ``folder`` and runs Snakemake's own `python`."""
    interpreters = Path(shutil.which(sys.executable) or sys.executable).parent
    os.environ["PYTHONPATH"] = str(folder)
    os.environ["PATH"] = os.pathsep.join([str(interpreters), os.environ.get("PATH", "")])


def conda_prefix(folder: Path) -> str:
    """The first commands of every job's shell, for jobs in conda environments.

    For such a job Snakemake takes PYTHONPATH away, and the activation may leave the environment behind a venv in PATH.
    Snakemake formats the prefix, so braces in the path are doubled.
    """
    package = shlex.quote(str(folder)).replace("{", "{{").replace("}", "}}")
    return f'[ "$PYTHONPATH" ] || export PYTHONPATH={package} PATH="$CONDA_PREFIX/bin:$PATH"; set -euo pipefail; '


def short_interpreter(interpreter: str) -> str:
    """``interpreter`` as Snakemake may write it into a job: by its name alone where its path holds a space.

    Snakemake's plugin for SLURM writes the path unquoted. The job finds the name by the PATH of :func:`lead_jobs_to`.
    """
    return Path(interpreter).name if " " in interpreter else interpreter


def launch_command(runtime: Runtime, threads: int) -> str:
    """Return the command that starts a training module: one process, several on this node, or some on each SLURM node.

    On several nodes, SLURM's batch step runs the command on the job's first node, so the processes meet at that node's
    host name. (Snakemake's SLURM plugin keeps SLURM_JOB_ID and drops the list of nodes.)
    """
    if runtime.processes == 1:
        return "python -m"
    stops = f"--shutdown-timeout={SHUTDOWN_SECONDS} --signals-to-handle={STOP_SIGNALS}"
    torchrun = f"torchrun {stops} --nproc-per-node={runtime.processes_per_node}"
    if runtime.nodes == 1:
        return f"{torchrun} --standalone -m"
    srun = f"srun --nodes={runtime.nodes} --ntasks={runtime.nodes} --ntasks-per-node=1 --cpus-per-task={threads}"
    meeting = "--rdzv-id=$SLURM_JOB_ID --rdzv-endpoint=$(hostname):$((20000 + SLURM_JOB_ID % 10000))"
    return f"{srun} {torchrun} --nnodes={runtime.nodes} --rdzv-backend=c10d {meeting} -m"


def node_resources(runtime: Runtime) -> dict[str, int | str]:
    """Return the rule resources for several SLURM nodes with one task each; empty for one node.

    ``mpi: srun`` makes Snakemake leave `srun` to the job. ``tasks_per_gpu: 0`` keeps the plugin from asking for the
    tasks again for each GPU.
    """
    if runtime.nodes == 1:
        return {}
    return {"mpi": "srun", "nodes": runtime.nodes, "tasks": runtime.nodes, "tasks_per_gpu": 0}
