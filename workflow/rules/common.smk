import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError


def own_root():
    """The folder that this workflow's own files are in, whoever's Snakefile includes them.

    Of a module on GitHub or GitLab Snakemake has a bare clone: its files are unpacked in the working folder, once a
    commit, because jobs on other nodes run the package from there.
    """
    root = workflow.current_basedir.join("../..")
    if root.is_local:
        return Path(root.get_path_or_uri(secret_free=True))
    clone = root.hosted_repo.repo
    folder = Path(".snakemake", "relora_study", clone.commit(root.ref).hexsha).absolute()
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as place:
            with (Path(place) / "files.tar").open("wb") as stream:
                clone.archive(stream, root.ref, path=["workflow", "resources", "paper"])
            shutil.unpack_archive(Path(place) / "files.tar", Path(place) / "files", filter="data")
            (Path(place) / "files").rename(folder)
    return folder


ROOT = own_root()
PACKAGE = ROOT / "workflow" / "relora_study"
sys.path.insert(0, str(PACKAGE.parent))
# The package is run in place: every job finds it there, and `python` is the one that runs Snakemake.
own_bin = str(Path(shutil.which(sys.executable)).parent)
os.environ.update(PYTHONPATH=str(PACKAGE.parent), PATH=os.pathsep.join([own_bin, os.environ.get("PATH", "")]))
# In a conda environment `python` is the environment's, which an activation may leave behind a venv's in PATH; and
# Snakemake takes PYTHONPATH away. The prefix is formatted, hence the double braces.
package = shlex.quote(str(PACKAGE.parent)).replace("{", "{{").replace("}", "}}")
shell.prefix(f'[ "$PYTHONPATH" ] || export PYTHONPATH={package} PATH="$CONDA_PREFIX/bin:$PATH"; set -euo pipefail; ')
# Snakemake's plugin for SLURM writes the interpreter into its jobs unquoted; its name alone is found by PATH there.
if " " in sys.executable:
    sys.executable = Path(sys.executable).name

from relora_study.config import cells, check
from relora_study.errors import UserError, refusal
from relora_study.estimate import estimated_minutes
from relora_study.report.captions import captions, chapters, shown, suite_name
from relora_study.scheduling import (
    launch_command,
    node_resources,
    pretrain_megabytes,
    pretrain_minutes,
    reading_megabytes,
    reading_minutes,
)
from relora_study.schema import check_results, mark_results


def hold_folder():
    """A hold on this folder for as long as this process lives; with no other, what a killed Snakemake locked is freed.

    Snakemake's own lock outlives it. The system takes this one back, however its process ends.
    """
    notes = Path(".snakemake")
    notes.mkdir(exist_ok=True)
    hold = (notes / "alive").open("w")
    with suppress(OSError):  # another is alive, or the file system has no locks: Snakemake's own lock speaks
        fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(notes / "locks", ignore_errors=True)
    with suppress(OSError):
        fcntl.flock(hold, fcntl.LOCK_SH)
    return hold


try:
    STUDY = check(config, [*workflow.configfiles])
    check_results(Path("results"), STUDY.schema_version)
    if not workflow.modifier.is_main_snakefile():  # a module, whose onstart Snakemake does not call
        mark_results(Path("results"), STUDY.schema_version)
    HOLD = hold_folder() if workflow.is_main_process else None  # a job on another node may not see the hold
except OSError as error:
    sys.exit(f"error: {refusal(error)}")
except UserError as error:
    sys.exit(f"error: {error}")  # a WorkflowError would add the lines of this file

CELLS = cells(STUDY)
CAPTIONS = captions(CELLS, shown(STUDY.report, CELLS), suite_name(STUDY.evaluation))
RELEASED = captions({}, "only", "BLiMP")
CHAPTERS = chapters()


wildcard_constraints:
    cell="|".join(CELLS),


def own(*names):
    """This workflow's own files, as inputs: their paths from the working folder, which another Snakefile may choose."""
    return [os.path.relpath(ROOT / name) for name in names]


def code(*places):
    """The modules of a stage, as inputs: a change to them reruns that stage alone."""
    files = [file for place in places for file in sorted((PACKAGE / place).rglob("*.py"))]
    return [os.path.relpath(file) for file in files]


def own_files(path, wanted=True):
    """The user's own files at ``path``, as inputs: what changes there is read again; none where it is not wanted."""
    found = [file for file in [Path(path), *Path(path).rglob("*")] if file.is_file()] if wanted and path else []
    return sorted(map(str, found))


def as_yaml(settings):
    """What a settings file holds."""
    return yaml.safe_dump(settings.model_dump(), sort_keys=False)


def by_cell(amount, *arguments):
    """What ``amount`` of relora_study.scheduling says of a job's cell, as a resource."""
    return lambda wildcards: amount(CELLS[wildcards.cell], *arguments)


def readings(wildcards):
    """Every file of every cell that the report may read."""
    return expand(
        "results/cells/{cell}/{file}",
        cell=CELLS,
        file=["config.yaml", "manifest.json", "evaluation.csv", "dynamics.csv"],
    )


def report_inputs(wildcards):
    """All that a part of the report is made from: readings, settings and the code that reports."""
    settings = expand("results/settings/{section}.yaml", section=["study", "report", "evaluation"])
    return [*readings(wildcards), *settings, *released_inputs(wildcards)]


def released_inputs(wildcards):
    """The released values and the code that reports; what is made from them alone needs no run."""
    tables = ["training_curves", "dynamics_curves", "blimp_by_paradigm", "final"]
    return [*code("report"), *own(*(f"resources/published/{name}.csv" for name in tables))]


def parent_of_output(wildcards, output):
    """The folder of a job's outputs."""
    return str(Path(output[0]).parent)


def announce():
    """Say what a study will cost before it starts, and leave the terminal to the trainings' progress."""
    # No setting of Snakemake's silences its scheduler's "Select jobs" and "Execute n jobs" without its errors.
    mark_results(Path("results"), STUDY.schema_version)
    logger.addFilter(lambda record: not str(record.msg).startswith(("Select jobs to execute", "Execute ")))
    on_cpu = f"about {estimated_minutes(STUDY):.0f} min on 2 CPU cores, less where work is done"
    cost = "`make plan` tells their GPU hours" if STUDY.runtime.device == "cuda" else on_cpu
    print(
        f"{len(CELLS)} cell{'s' * (len(CELLS) > 1)}: {cost}.\n"
        "Each training says every 20 seconds how far it is; all else is in results/logs. Stop and go on at any time.",
        file=sys.stderr,
    )


def web_report():
    """After a run of the whole study: remake results/report.html, by the user's own command with `--report`."""
    paper, page, log = (Path("results") / name for name in ("paper.pdf", "report.html", "logs/report.log"))
    if workflow.dag_settings.targets:
        return
    if not page.exists() or page.stat().st_mtime < paper.stat().st_mtime:
        style = str(PACKAGE.parent / "report" / "style.css")  # the default profile's, which need not be in use
        command = [
            sys.executable,
            "-m",
            "snakemake",
            *sys.argv[1:],
            "--report",
            str(page),
            "--report-stylesheet",
            style,
        ]
        with log.open("w", encoding="utf-8") as stream:
            if subprocess.run(command, stdout=stream, stderr=stream).returncode:
                raise WorkflowError(f"the web report could not be made; {log} says why")
    print(f"Done: {paper}, {page}, results/figures/, results/tables/", file=sys.stderr)
