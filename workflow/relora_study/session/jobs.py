"""How a job finds the package and the right `python`: on this machine, on another node, in a conda environment."""

import os
import shlex
import shutil
import sys
from pathlib import Path


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
