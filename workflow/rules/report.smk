rule figure:
    input:
        report_inputs,
    output:
        report(
            "results/figures/{name}.pdf",
            caption="../report/caption.rst",
            category="Figures",
            subcategory=lambda wildcards: CHAPTERS[wildcards.name],
            labels={"figure": "{name}", "format": "PDF"},
        ),
        report(
            "results/figures/{name}.png",
            caption="../report/caption.rst",
            category="Figures",
            subcategory=lambda wildcards: CHAPTERS[wildcards.name],
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
        place=parent_of_output,
        source="",
    message:
        "Figure {wildcards.name}"
    shell:
        "python -m relora_study.report figure {wildcards.name} {params.source}"
        " --output {params.place:q}/{wildcards.name} 2> >(tee {log:q} >&2)"


use rule figure as released_figure with:
    input:
        released_inputs,
    output:
        report(
            "results/published/figures/{name}.pdf",
            caption="../report/caption.rst",
            category="Released curves",
            labels={"figure": "{name}", "format": "PDF"},
        ),
        report(
            "results/published/figures/{name}.png",
            caption="../report/caption.rst",
            category="Released curves",
            labels={"figure": "{name}", "format": "PNG"},
        ),
    log:
        "results/logs/report/released-figure-{name}.log",
    benchmark:
        "results/benchmarks/jobs/released-figure-{name}.tsv"
    wildcard_constraints:
        name="|".join(RELEASED["figures"]),
    params:
        caption=lambda wildcards: RELEASED["figures"][wildcards.name],
        place=parent_of_output,
        source="--published",
    message:
        "Figure {wildcards.name}, from the released values"


rule table:
    input:
        report_inputs,
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
        place=parent_of_output,
        source="",
    message:
        "Table {wildcards.name}"
    shell:
        "python -m relora_study.report table {wildcards.name} {params.source}"
        " --output {params.place:q}/{wildcards.name} 2> >(tee {log:q} >&2)"


use rule table as released_table with:
    input:
        released_inputs,
    output:
        report(
            "results/published/tables/{name}.csv",
            caption="../report/caption.rst",
            category="Released values",
            labels={"table": "{name}"},
        ),
        "results/published/tables/{name}.md",
        "results/published/tables/{name}.tex",
    log:
        "results/logs/report/released-table-{name}.log",
    benchmark:
        "results/benchmarks/jobs/released-table-{name}.tsv"
    wildcard_constraints:
        name="|".join(RELEASED["tables"]),
    params:
        caption=lambda wildcards: RELEASED["tables"][wildcards.name],
        place=parent_of_output,
        source="--published",
    message:
        "Table {wildcards.name}, from the released values"


rule paper:
    input:
        report_inputs,
        expand("results/figures/{name}.pdf", name=CAPTIONS["figures"]),
        source=own("paper/paper.typ"),
        parts=own("paper/style.typ", "paper/references.bib"),
    output:
        report("results/paper.pdf", caption="../report/paper.rst", category="Paper", labels={"document": "paper"}),
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
    params:
        source="",
    message:
        "Typesetting the paper"
    shell:
        "python -m relora_study.report paper --source {input.source:q} {params.source} --output {output:q} 2> >(tee {log:q} >&2)"


use rule paper as released_paper with:
    input:
        released_inputs,
        expand("results/published/figures/{name}.pdf", name=RELEASED["figures"]),
        source=own("paper/released.typ"),
        parts=own("paper/style.typ", "paper/references.bib"),
    output:
        report(
            "results/published/paper.pdf",
            caption="../report/released.rst",
            category="Paper",
            labels={"document": "released values"},
        ),
    log:
        "results/logs/report/released-paper.log",
    benchmark:
        "results/benchmarks/jobs/released-paper.tsv"
    params:
        source="--published",
    message:
        "Typesetting what the released values show"


# The first page of the web report; workflow/report/workflow.rst includes it.
rule landing:
    input:
        report_inputs,
    output:
        "results/landing.rst",
    log:
        "results/logs/report/landing.log",
    benchmark:
        "results/benchmarks/jobs/landing.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        source="",
    message:
        "The web report's first page"
    shell:
        "python -m relora_study.report landing {params.source} --output {output:q} 2> >(tee {log:q} >&2)"


use rule landing as released_landing with:
    input:
        released_inputs,
    output:
        "results/published/landing.rst",
    log:
        "results/logs/report/released-landing.log",
    benchmark:
        "results/benchmarks/jobs/released-landing.tsv"
    params:
        source="--published",
    message:
        "The web report's first page, of the released values"
