rule figure:
    input:
        readings,
        code("report"),
        study="results/settings/study.yaml",
        settings="results/settings/report.yaml",
    output:
        report(
            "results/figures/{name}.pdf",
            caption="../report/caption.rst",
            category="Figures",
            labels={"figure": "{name}", "format": "PDF"},
        ),
        report(
            "results/figures/{name}.png",
            caption="../report/caption.rst",
            category="Figures",
            labels={"figure": "{name}", "format": "PNG"},
        ),
    log:
        "results/logs/report/figure-{name}.log",
    benchmark:
        "results/benchmarks/jobs/figure-{name}.tsv"
    wildcard_constraints:
        name="|".join(CAPTIONS["figures"]),
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        caption=lambda wildcards: CAPTIONS["figures"][wildcards.name],
    message:
        "Figure {wildcards.name}"
    shell:
        "python -m relora_study.report figure {wildcards.name} --study {input.study:q}"
        " --cells results/cells --settings {input.settings:q} --output results/figures/{wildcards.name} 2> >(tee {log:q} >&2)"


rule table:
    input:
        readings,
        code("report"),
        study="results/settings/study.yaml",
        settings="results/settings/report.yaml",
    output:
        report(
            "results/tables/{name}.csv",
            caption="../report/caption.rst",
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
        name="|".join(CAPTIONS["tables"]),
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        caption=lambda wildcards: CAPTIONS["tables"][wildcards.name],
    message:
        "Table {wildcards.name}"
    shell:
        "python -m relora_study.report table {wildcards.name} --study {input.study:q}"
        " --cells results/cells --settings {input.settings:q} --output results/tables/{wildcards.name} 2> >(tee {log:q} >&2)"


rule paper:
    input:
        readings,
        code("report"),
        "resources/published/final.csv",
        expand("results/figures/{name}.{format}", name=CAPTIONS["figures"], format=["pdf", "png"]),
        expand("results/tables/{name}.csv", name=CAPTIONS["tables"]),
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
        " --source {input.source:q} --results results --output {output:q} 2> >(tee {log:q} >&2)"


rule published_figure:
    input:
        code("report"),
        expand("resources/published/{file}_curves.csv", file=["training", "dynamics"]),
        "resources/published/blimp_by_paradigm.csv",
    output:
        "results/published/figures/{name}.pdf",
        "results/published/figures/{name}.png",
    log:
        "results/logs/report/published-figure-{name}.log",
    benchmark:
        "results/benchmarks/jobs/published-figure-{name}.tsv"
    wildcard_constraints:
        name="|".join(CAPTIONS["published_figures"]),
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "Figure {wildcards.name}, from the released curves"
    shell:
        "python -m relora_study.report published-figure {wildcards.name}"
        " --output results/published/figures/{wildcards.name} 2> >(tee {log:q} >&2)"


rule published_audit:
    input:
        code("report"),
        expand("resources/published/{file}_curves.csv", file=["training", "dynamics"]),
    output:
        multiext("results/published/tables/audit", ".csv", ".md", ".tex"),
    log:
        "results/logs/report/published-audit.log",
    benchmark:
        "results/benchmarks/jobs/published-audit.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "What the released curves show by themselves"
    shell:
        "python -m relora_study.report published-audit-table"
        " --output results/published/tables/audit 2> >(tee {log:q} >&2)"
