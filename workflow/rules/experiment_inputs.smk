# What the jobs of sweeps and searches take, and the captions of what the report shows of them.
import shlex

from relora_study.report.captions import experiment_caption
from relora_study.report.escape import rst

REPORTED_EXPERIMENTS = [*(STUDY.sweeps or {}), *(["search"] if EXPERIMENTS.searches else [])]


def of_candidate(amount):
    """What ``amount`` of relora_study.cost.estimates says of a candidate's job, as a resource."""
    return lambda wildcards: amount(EXPERIMENTS.searches[wildcards.search][1][wildcards.candidate])


def rung_before(wildcards):
    """Who goes on from the rung before; nothing at the first."""
    rung = int(wildcards.rung)
    return f"results/tuning/{wildcards.search}/rung-{rung - 1}.csv" if rung else []


def search_of(wildcards):
    """The search that chooses a cell's settings."""
    cell = CELLS[wildcards.cell]
    return f"results/tuning/{cell.size_name}-{cell.method_name}"


def experiment_inputs(wildcards):
    """What a sweep's cells scored, or what the candidates of all searches left."""
    return inputs_of_experiment(wildcards.experiment)


def all_experiment_inputs(wildcards):
    """The inputs of every sweep and of the search."""
    return [file for name in REPORTED_EXPERIMENTS for file in inputs_of_experiment(name)]


def inputs_of_experiment(name):
    """The inputs of the experiment ``name``: a sweep, or the search."""
    if name != "search":
        cells = EXPERIMENTS.sweeps.sweeps[name].cells
        found = expand("results/cells/{cell}/{file}", cell=cells, file=["config.yaml", "manifest.json", "held_out.csv"])
        settings = expand("results/settings/{section}.yaml", section=["sweeps", "report", "labels"])
        return [REPORT_CODE, YARDSTICKS, *settings, *found]
    last = len(STUDY.tuning.rungs)
    parts = ["settings.yaml", *(f"rung-{number}.csv" for number in range(last))]
    own = [REPORT_CODE, "results/settings/study.yaml", "results/settings/labels.yaml"]
    return [*own, *expand("results/tuning/{search}/{part}", search=EXPERIMENTS.searches, part=parts)]


def inputs_of_claims(wildcards):
    """What the claims ledger reads beside the study's own cells: the sweeps over the micro-batch."""
    if wildcards.place or getattr(wildcards, "name", "claims") != "claims":
        return []
    over = EXPERIMENTS.sweeps.over("micro_batch_size")
    return ["results/settings/sweeps.yaml", *(file for name in over for file in inputs_of_experiment(name))]


def experiment_caption_of(kind):
    """The caption of an experiment's ``kind`` ("figure", "table") for Snakemake's report."""
    sweeps = EXPERIMENTS.sweeps.sweeps
    compares = {name: settings.against is not None for name, settings in sweeps.items()}
    return lambda wildcards: rst(
        experiment_caption(wildcards.experiment, kind, compares.get(wildcards.experiment, False))
    )
