# Around the jobs of a run: its cost at the start, lines of progress on the way, and the web report at the end.
import sys

from snakemake.common import NOTHING_TO_BE_DONE_MSG
from snakemake.exceptions import WorkflowError

from relora_study.cost.estimates import estimated_minutes, expected_rung_seconds, expected_seconds
from relora_study.session.progress import Progress, Training, last_step
from relora_study.session.snakemake import (
    cost_of_run,
    make_web_report,
    show_news_alone,
    web_report_is_due,
)


def expected_time(kind, wildcards):
    """The seconds that a job of the rule called ``kind`` may take on a CPU core."""
    if kind == "rung":
        return expected_rung_seconds(EXPERIMENTS.searches[wildcards.search], int(wildcards.rung))
    return expected_seconds(kind, ALL_CELLS.get(getattr(wildcards, "cell", None)))


def training(kind, wildcards):
    """How far a job that trains a cell is, by its log; None for other jobs, and before its first step."""
    cell = ALL_CELLS[wildcards.cell] if kind == "pretrain" else None
    last = last_step(RESULTS / "cells" / cell.name / "log.csv") if cell else None
    return last and Training(last[0], cell.train.steps, last[1])


PROGRESS = Progress(workflow, expected_time, training, trusted=STUDY.runtime.device != "cuda")


def begin():
    """Before the first job: mark the results with their version, tell the cost, start the lines of progress."""
    mark_results(RESULTS, STUDY.schema_version)
    show_news_alone(logger.handlers)
    minutes = None if STUDY.runtime.device == "cuda" else estimated_minutes(STUDY, EXPERIMENTS)
    candidates = sum(len(settings.candidates) for settings, _ in EXPERIMENTS.searches.values())
    print(cost_of_run(len(ALL_CELLS), candidates, minutes), file=sys.stderr)
    PROGRESS.start()


def finish():
    """After a run without errors: make the web report where it is due."""
    PROGRESS.stop()
    targets = [Path(file) for file in rules.all.input if isinstance(file, str)]
    paper, page, log = (RESULTS / name for name in ("paper.pdf", "report.html", "logs/report.log"))
    if not web_report_is_due(targets, paper, page):
        return
    settings, style = RESULTS / "settings" / "whole.yaml", PACKAGE.parent / "report" / "style.css"
    if not make_web_report(snakefile(), settings, style, page, log):
        raise WorkflowError(f"the web report could not be made; {log} says why")
    tell_outcome()
    print(f"Done: {paper}, {page}, results/figures/, results/tables/", file=sys.stderr)


def tell_outcome():
    """Print the outcome of the study, where there is one."""
    if (summary := RESULTS / "summary.txt").exists():
        print("", summary.read_text(encoding="utf-8"), sep="\n", file=sys.stderr)


def tell_outcome_again(record):
    """Print the outcome where Snakemake finds nothing to be done, because it calls neither of the functions below then."""
    if record.msg == NOTHING_TO_BE_DONE_MSG:
        tell_outcome()
    return True


logger.addFilter(tell_outcome_again)
