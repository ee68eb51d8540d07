"""How a job finds the package and the right `python`, and how a training starts its processes."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from ..config import Runtime

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
