import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

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

from relora_study.analysis.naming import shows_published, suite_name
from relora_study.config import cells, check
from relora_study.errors import UserError, refusal
from relora_study.estimate import estimated_minutes, expected_seconds
from relora_study.imports import source_files
from relora_study.job_resources import (
    launch_command,
    node_resources,
    pretrain_megabytes,
    pretrain_minutes,
    reading_megabytes,
    reading_minutes,
)
from relora_study.progress import Progress
from relora_study.report.captions import captions, chapters, published_captions
from relora_study.results_version import check_results, mark_results
from relora_study.snakemake_session import (
    TerminalFilter,
    filter_terminal,
    hold_folder,
    make_web_report,
    stop_on_interrupt,
)
from relora_study.staging import stage, stage_code, staged_cell, staged_listing, staged_settings, user_places

try:
    # The Snakefile's own config.yaml is the weakest file, and Snakemake lists it last.
    OVERLAYS = workflow.config_settings.configfiles
    STUDY = check(
        config,
        [*(file for file in workflow.configfiles if file not in OVERLAYS), *OVERLAYS],
        workflow.config_settings.config,
    )
    CELLS = cells(STUDY)
    check_results(Path("results"), STUDY.schema_version)
    if not workflow.modifier.is_main_snakefile():  # a module, whose onstart Snakemake does not call
        mark_results(Path("results"), STUDY.schema_version)
    HOLD = hold_folder() if workflow.is_main_process else None  # a job on another node may not see the hold
    if workflow.is_main_process:
        stage(STUDY, CELLS, Path("results"))
except OSError as error:
    sys.exit(f"error: {refusal(error)}")
except UserError as error:
    sys.exit(f"error: {error}")  # a WorkflowError would add the lines of this file

CAPTIONS = captions(CELLS, shows_published(STUDY.report, CELLS), suite_name(STUDY.evaluation, STUDY.report))
PUBLISHED = published_captions()
CHAPTERS = chapters()


wildcard_constraints:
    cell="|".join(CELLS),


def own(*names):
    """This workflow's own files, as inputs: their paths from the working folder, which another Snakefile may choose."""
    return [os.path.relpath(ROOT / name) for name in names]


def code(stage):
    """The listing of the modules that a stage's command runs, as an input: a change to one reruns what imports it."""
    listing = staged_listing(f"code-{stage}")
    if workflow.is_main_process:
        stage_code(source_files(f"{stage}.__main__"), PACKAGE, listing)
    return str(listing)


def own_files(reader):
    """The listing of the user's own files that ``reader`` reads, as an input; none where it reads none."""
    return str(staged_listing(reader)) if reader in user_places(STUDY) else []


def by_cell(amount, *arguments):
    """What ``amount`` of relora_study.job_resources says of a job's cell, as a resource."""
    return lambda wildcards: amount(CELLS[wildcards.cell], *arguments)


def readings(wildcards):
    """Every file of every cell that the report may read."""
    return expand(
        "results/cells/{cell}/{file}",
        cell=CELLS,
        file=["config.yaml", "manifest.json", "evaluation.csv", "dynamics.csv"],
    )


def last_readings(wildcards):
    """The files of every cell that are made last, from its others; Snakemake plans each part of the report by them."""
    return expand("results/cells/{cell}/{file}", cell=CELLS, file=["evaluation.csv", "dynamics.csv"])


def report_inputs(wildcards):
    """All that a part of the report is made from: readings, settings and the code that reports."""
    settings = expand("results/settings/{section}.yaml", section=["study", "report", "evaluation"])
    return [*last_readings(wildcards), *settings, *published_inputs(wildcards)]


def published_inputs(wildcards):
    """The authors' values and the code that reports; what is made from them alone needs no run."""
    tables = ["training_curves", "dynamics_curves", "blimp_by_paradigm", "final"]
    return [code("report"), *own(*(f"resources/published/{name}.csv" for name in tables))]


def parent_of_output(wildcards, output):
    """The folder of a job's outputs."""
    return str(Path(output[0]).parent)


TERMINAL = TerminalFilter()
PROGRESS = Progress(
    workflow,
    lambda rule, cell: expected_seconds(rule, CELLS.get(cell)),
    trusted=STUDY.runtime.device != "cuda",
)


def begin():
    """Mark the results, say what the study will cost, and from then on how far it is."""
    mark_results(Path("results"), STUDY.schema_version)
    filter_terminal(logger.handlers, TERMINAL)
    stop_on_interrupt(TERMINAL)
    on_cpu = f"about {estimated_minutes(STUDY):.0f} min on 2 CPU cores, less where work is done"
    cost = "`make plan` tells their GPU hours" if STUDY.runtime.device == "cuda" else on_cpu
    print(
        f"{len(CELLS)} cell{'s' * (len(CELLS) > 1)}: {cost}.\n"
        "Twice a minute a line says how far the study is; all else is in results/logs. Stop and go on at any time.",
        file=sys.stderr,
    )
    PROGRESS.start()


def finish():
    """After a run without errors."""
    PROGRESS.stop()
    web_report()


def end_unfinished():
    """The last line after Ctrl-C; after an error, Snakemake has said what failed."""
    PROGRESS.stop()
    if TERMINAL.interrupted:
        print("Stopped. Run the same command again to go on from there.", file=sys.stderr)


def web_report():
    """Once the whole study is there: remake results/report.html where the paper is newer."""
    results = Path("results")
    paper, page, log = (results / name for name in ("paper.pdf", "report.html", "logs/report.log"))
    whole = [Path(file) for file in rules.all.input if isinstance(file, str)]
    if not all(file.exists() for file in whole):
        return
    if not page.exists() or page.stat().st_mtime < paper.stat().st_mtime:
        style = PACKAGE.parent / "report" / "style.css"
        if not make_web_report(str(workflow.main_snakefile), staged_settings("whole"), style, page, log):
            raise WorkflowError(f"the web report could not be made; {log} says why")
        print(f"Done: {paper}, {page}, results/figures/, results/tables/", file=sys.stderr)
