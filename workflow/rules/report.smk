FIGURES = [
    "training_curves",
    "per_weights",
    "cn_weights",
    "per_updates",
    "cn_updates",
    "first_last_layers",
    "minimal_pairs_by_phenomenon",
    "perplexity_by_domain",
    "lr_schedules",
    "resets",
]
TABLES = [
    "models",
    "hyperparameters",
    "final_results",
    "cost",
    "significance",
    "dead_first_cycle",
]


rule figure:
    input:
        readings,
        code("report"),
        study="results/settings/study.yaml",
    output:
        report(
            "results/figures/{name}.pdf",
            category="Figures",
            labels={"figure": "{name}", "format": "PDF"},
        ),
        report(
            "results/figures/{name}.png",
            caption="../report/{name}.rst",
            category="Figures",
            labels={"figure": "{name}", "format": "PNG"},
        ),
    log:
        "results/logs/report/figure-{name}.log",
    benchmark:
        "results/benchmarks/jobs/figure-{name}.tsv"
    wildcard_constraints:
        name="|".join(FIGURES),
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "Figure {wildcards.name}"
    shell:
        "python -m relora_study.report figure {wildcards.name} --study {input.study:q}"
        " --cells results/cells --output results/figures/{wildcards.name} 2> {log:q}"


rule table:
    input:
        readings,
        code("report"),
        study="results/settings/study.yaml",
    output:
        report(
            "results/tables/{name}.csv",
            caption="../report/{name}.rst",
            category="Tables",
            labels={"table": "{name}"},
        ),
        "results/tables/{name}.md",
        "results/tables/{name}.tex",
    log:
        "results/logs/report/table-{name}.log",
    benchmark:
        "results/benchmarks/jobs/table-{name}.tsv"
    wildcard_constraints:
        name="|".join(TABLES),
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "Table {wildcards.name}"
    shell:
        "python -m relora_study.report table {wildcards.name} --study {input.study:q}"
        " --cells results/cells --output results/tables/{wildcards.name} 2> {log:q}"


rule paper:
    input:
        readings,
        code("report"),
        "resources/published.csv",
        expand("results/figures/{name}.{format}", name=FIGURES, format=["pdf", "png"]),
        expand("results/tables/{name}.csv", name=TABLES),
        settings="results/settings/report.yaml",
        study="results/settings/study.yaml",
        source="paper/paper.typ",
    output:
        report("results/paper.pdf", caption="../report/paper.rst", category="Paper"),
    log:
        "results/logs/report/paper.log",
    benchmark:
        "results/benchmarks/jobs/paper.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "Typesetting the paper"
    shell:
        "python -m relora_study.report paper --settings {input.settings:q} --study {input.study:q}"
        " --source {input.source:q} --results results --output {output:q} 2> {log:q}"
