# The study that the configuration declares, and the inputs and resources that rules of several stages share.
import os
import re
from functools import cache
from pathlib import Path

from relora_study.analysis.published_recipe import shows_published
from relora_study.config import cells, check
from relora_study.config.benchmark_names import is_users, suite_name
from relora_study.cost.estimates import (
    pretrain_megabytes,
    pretrain_minutes,
    reading_megabytes,
    reading_minutes,
    training_cores,
)
from relora_study.errors import mistakes_in_one_line
from relora_study.report.captions import captions, chapters, published_captions
from relora_study.config.settings import Labels, Partners, experiments_of
from relora_study.session.snakemake import launch_command, node_resources
from relora_study.report.numbers import use_labels
from relora_study.session.start import (
    TEMPLATE,
    check_results,
    holds,
    mark_results,
    renew_template,
    texts_at_start,
    user_places,
)
from relora_study.train.events import check_tensorboard

RESULTS = Path("results")


def claim_results():
    """Refuse results of another version. A module marks its results here: Snakemake never calls a module's onstart."""
    check_results(RESULTS, STUDY.schema_version)
    if is_module():
        mark_results(RESULTS, STUDY.schema_version)


with mistakes_in_one_line():
    STUDY = check(config, *configuration_files())
    if jobs_share_this_environment():
        check_tensorboard(STUDY.runtime)  # other jobs check for themselves
    CELLS = cells(STUDY)
    TASKS = STUDY.evaluation.every_task
    EXPERIMENTS = experiments_of(STUDY)
    ALL_CELLS = CELLS | EXPERIMENTS.cells
    PARTNERS = Partners.of(STUDY, ALL_CELLS).pairs
    claim_results()
    if starts_the_run():
        renew_template()

use_labels(Labels.of(STUDY).labels)
CAPTIONS = captions(CELLS, shows_published(STUDY.report, CELLS), suite_name(STUDY.evaluation, STUDY.report))
PUBLISHED = published_captions()
CHAPTERS = chapters()


def one_of(names):
    """A wildcard's constraint: one of ``names``, none of which may be read as a pattern."""
    return "|".join(map(re.escape, names)) or "(?!)"


TUNED = CELLS if STUDY.tuning else {}


wildcard_constraints:
    cell=one_of(ALL_CELLS),


def workflow_files(*names):
    """Files of this workflow, as inputs: paths from the working folder, which another Snakefile may choose."""
    return [os.path.relpath(ROOT / name) for name in names]


TEXTS = texts_at_start(STUDY, CELLS, EXPERIMENTS)


@cache
def text_of(file):
    """The text that the file of this path in results/ should have."""
    return TEXTS[file]()


def template_of(wildcards):
    """The template of a file that the start of a run decides: newer than the file, where its text changed.

    A missing listing (.txt) of the user's files starts nothing: archives have none, because their text stays with its
    owner, and what was made of it stands.
    """
    path = RESULTS / wildcards.file
    stands = holds(path, text_of(wildcards.file)) or (path.suffix == ".txt" and not path.exists())
    return ancient(str(TEMPLATE)) if stands else str(TEMPLATE)


def code(stage):
    """The listing of the modules that a stage's command runs, as an input: a change to one reruns what imports it."""
    return f"results/settings/code-{stage}.txt"


def users_files(reader):
    """The listing of the user's files that the rule ``reader`` reads, as an input; none where the rule reads none."""
    return f"results/settings/files-{reader}.txt" if reader in user_places(STUDY) else []


def before_training(path, trained, settings):
    """An input that a training waits for, and that never trains again what left ``trained``, a pattern with wildcards.

    Snakemake lets `ancient` pass what is missing, too: where the file at ``path`` is made again, it would start nothing
    behind it. But then Snakemake looks at no other input of the training, so `ancient` is for those that need no training:
    what they left is newer than their ``settings``, a pattern too, and than the tokens.
    """

    def due(wildcards):
        read = [settings.format(**wildcards), "results/data/tokens/manifest.json"]
        left = trained.format(**wildcards)
        return not os.path.exists(left) or any(map(newer_than(left), filter(os.path.exists, read)))

    return lambda wildcards: path if due(wildcards) else ancient(path)


def newer_than(file):
    """Whether a path is newer than the one at ``file``, as a function."""
    return lambda path: os.path.getmtime(path) > os.path.getmtime(file)


def by_cell(amount, *arguments):
    """A resource: the ``amount``, a function of relora_study.cost.estimates, for the cell of a job."""
    return lambda wildcards: amount(ALL_CELLS[wildcards.cell], *arguments)


REPORT_CODE = code("report")
YARDSTICKS = "results/evaluation/yardsticks.csv"


def readings(wildcards):
    """Every file of every cell that the report may read."""
    return expand(
        "results/cells/{cell}/{file}",
        cell=CELLS,
        file=["config.yaml", "manifest.json", "evaluation.csv", "held_out.csv", "dynamics.csv"],
    )


def last_readings(wildcards):
    """The files of each cell that are made last. They stand for all readings where Snakemake plans the report."""
    return expand("results/cells/{cell}/{file}", cell=CELLS, file=["evaluation.csv", "held_out.csv", "dynamics.csv"])


def report_inputs(wildcards):
    """The inputs of a part of the report: readings, settings, the published values and the code that reports."""
    settings = expand("results/settings/{section}.yaml", section=["study", "report", "evaluation", "labels"])
    return [*last_readings(wildcards), YARDSTICKS, *settings, *published_inputs(wildcards)]


def published_inputs(wildcards):
    """The published values and the code that reports. A part made from these alone needs no run."""
    tables = ["training_curves", "dynamics_curves", "blimp_by_paradigm", "final"]
    return [REPORT_CODE, *workflow_files(*(f"resources/published/{name}.csv" for name in tables))]


def parent_of_output(wildcards, output):
    """The folder of a job's outputs."""
    return str(Path(output[0]).parent)


def task_inputs(wildcards):
    """What the texts of a task are made from: the corpus's documents, the user's files, a vocabulary for lists of ids."""
    chosen = TASKS[wildcards.task]
    read = {
        "results/data/documents": chosen.source in ("held_out", "templated"),
        "results/data/tokenizer": chosen.kind == "texts",
        f"results/settings/files-task-{wildcards.task}.txt": is_users(chosen),
    }
    return [place for place, is_read in read.items() if is_read]
