# Sweeps are cells beside the study's own, of which the report reads the held-out loss alone. A search trains candidates from rung to
# rung; every job of it is known from the start, and one whose candidate was dropped ends at once.
wildcard_constraints:
    search=one_of(EXPERIMENTS.searches),
    candidate=one_of(name for _, tried in EXPERIMENTS.searches.values() for name in tried),
    rung=r"\d+",


CANDIDATE = "results/tuning/{search}/{candidate}"


rule rung:
    input:
        config=f"{CANDIDATE}/config.yaml",
        tokens="results/data/tokens",
        enough=before_training("results/data/enough.txt", f"{CANDIDATE}/rung-{{rung}}.json", f"{CANDIDATE}/config.yaml"),
        selection=rung_before,
    output:
        f"{CANDIDATE}/rung-{{rung}}.json",
    log:
        "results/logs/tuning/{search}/{candidate}-rung-{rung}.log",
    benchmark:
        "results/benchmarks/jobs/rung-{search}-{candidate}-{rung}.tsv"
    priority: 20
    conda:
        "../../envs/train.yaml"
    threads: training_cores(STUDY.runtime)
    resources:
        **node_resources(STUDY.runtime),
        mem_mb=of_candidate(pretrain_megabytes),
        runtime=of_candidate(pretrain_minutes),
        gpu=STUDY.runtime.processes * (STUDY.runtime.device == "cuda"),
    params:
        launch=launch_command(STUDY.runtime, training_cores(STUDY.runtime)),
        until=lambda wildcards: EXPERIMENTS.searches[wildcards.search][0].rungs[int(wildcards.rung)],
        selection=lambda wildcards, input: f"--selection {shlex.quote(input.selection)}" if input.selection else "",
    message:
        "Rung {wildcards.rung} of {wildcards.candidate}, {wildcards.search}"
    shell:
        "export TQDM_DISABLE=1; exec {params.launch} relora_study.train rung --config {input.config:q} --tokens {input.tokens:q}"
        " --until {params.until} {params.selection} --output {output:q} --threads {threads} --wait"
        " 2> >(trap '' TERM INT USR1; exec tee {log:q} >&2)"


rule selection:
    input:
        code("search"),
        settings="results/tuning/{search}/settings.yaml",
        rungs=lambda wildcards: expand(
            "results/tuning/{search}/{candidate}/rung-{rung}.json",
            search=wildcards.search,
            candidate=EXPERIMENTS.searches[wildcards.search][0].cells_at(int(wildcards.rung)),
            rung=wildcards.rung,
        ),
    output:
        "results/tuning/{search}/rung-{rung}.csv",
    log:
        "results/logs/tuning/{search}/rung-{rung}.log",
    priority: 20
    conda:
        "../../envs/report.yaml"
    message:
        "Who goes on from rung {wildcards.rung}, {wildcards.search}"
    shell:
        "python -m relora_study.search select --settings {input.settings:q} --rung {wildcards.rung}"
        " --output {output:q} {input.rungs:q} 2> >(tee {log:q} >&2)"


rule tuned_settings:
    input:
        code("search"),
        base="results/tuning/base/{cell}.yaml",
        settings=lambda wildcards: f"{search_of(wildcards)}/settings.yaml",
        selection=lambda wildcards: f"{search_of(wildcards)}/rung-{len(STUDY.tuning.rungs) - 1}.csv",
    output:
        "results/cells/{cell}/config.yaml",
    log:
        "results/logs/settings/{cell}.log",
    wildcard_constraints:
        cell=one_of(TUNED),
    priority: 20
    conda:
        "../../envs/report.yaml"
    message:
        "Settings: {wildcards.cell}, as its search chose them"
    shell:
        "python -m relora_study.search settle --base {input.base:q} --settings {input.settings:q}"
        " --selection {input.selection:q} --output {output:q} 2> >(tee {log:q} >&2)"


rule experiment_figure:
    input:
        experiment_inputs,
    output:
        report(
            "results/figures/experiment_{experiment}.pdf",
            caption="../report/caption.rst",
            category="4 Experiments",
            labels={"experiment": "{experiment}", "format": "PDF"},
        ),
        report(
            "results/figures/experiment_{experiment}.png",
            caption="../report/caption.rst",
            category="4 Experiments",
            labels={"experiment": "{experiment}", "format": "PNG"},
        ),
    log:
        "results/logs/report/experiment-figure-{experiment}.log",
    wildcard_constraints:
        experiment=one_of(REPORTED_EXPERIMENTS),
    conda:
        "../../envs/report.yaml"
    params:
        caption=experiment_caption_of("figure"),
        folder=parent_of_output,
    message:
        "Figure of the experiment {wildcards.experiment}"
    shell:
        "python -m relora_study.report experiment-figure {wildcards.experiment}"
        " --output {params.folder:q}/experiment_{wildcards.experiment} 2> >(tee {log:q} >&2)"


rule experiment_table:
    input:
        experiment_inputs,
    output:
        report(
            "results/tables/experiment_{experiment}.csv",
            caption="../report/caption.rst",
            category="4 Experiments",
            labels={"experiment": "{experiment}", "format": "CSV"},
        ),
        "results/tables/experiment_{experiment}.md",
        "results/tables/experiment_{experiment}.tex",
        "results/tables/experiment_{experiment}.runs.csv",
    log:
        "results/logs/report/experiment-table-{experiment}.log",
    wildcard_constraints:
        experiment=one_of(REPORTED_EXPERIMENTS),
    conda:
        "../../envs/report.yaml"
    params:
        caption=experiment_caption_of("table"),
        folder=parent_of_output,
    message:
        "Table of the experiment {wildcards.experiment}"
    shell:
        "python -m relora_study.report experiment-table {wildcards.experiment}"
        " --output {params.folder:q}/experiment_{wildcards.experiment} 2> >(tee {log:q} >&2)"
