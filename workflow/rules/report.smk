# Each rule serves two documents. The wildcard `place` is empty for our runs, with parts in results/, and `published/`
# for the published values, with parts in results/published/ that need no run.
wildcard_constraints:
    place="(published/)?",


rule figure:
    input:
        inputs_of_report,
    output:
        report(
            "results/{place}figures/{name}.pdf",
            caption="../report/caption.rst",
            category=category_of(0),
            subcategory=chapter_of,
            labels={"figure": "{name}", "format": "PDF"},
        ),
        report(
            "results/{place}figures/{name}.png",
            caption="../report/caption.rst",
            category=category_of(0),
            subcategory=chapter_of,
            labels={"figure": "{name}", "format": "PNG"},
        ),
    log:
        "results/logs/report/{place}figure-{name}.log",
    benchmark:
        "results/benchmarks/jobs/{place}figure-{name}.tsv"
    wildcard_constraints:
        name=names_of("figures"),
    conda:
        "../../envs/report.yaml"
    params:
        caption=caption_of("figures"),
        folder=parent_of_output,
        source=source_of,
    message:
        "Figure {wildcards.place}{wildcards.name}"
    shell:
        "python -m relora_study.report figure {wildcards.name} {params.source}"
        " --output {params.folder:q}/{wildcards.name} 2> >(tee {log:q} >&2)"


rule table:
    input:
        inputs_of_report,
        inputs_of_claims,
    output:
        report(
            "results/{place}tables/{name}.csv",
            caption="../report/caption.rst",
            category=category_of(1),
            labels={"table": "{name}"},
        ),
        "results/{place}tables/{name}.md",
        "results/{place}tables/{name}.tex",
    log:
        "results/logs/report/{place}table-{name}.log",
    benchmark:
        "results/benchmarks/jobs/{place}table-{name}.tsv"
    wildcard_constraints:
        name=names_of("tables"),
    conda:
        "../../envs/report.yaml"
    params:
        caption=caption_of("tables"),
        folder=parent_of_output,
        source=source_of,
    message:
        "Table {wildcards.place}{wildcards.name}"
    shell:
        "python -m relora_study.report table {wildcards.name} {params.source}"
        " --output {params.folder:q}/{wildcards.name} 2> >(tee {log:q} >&2)"


rule paper:
    input:
        inputs_of_report,
        figures_of,
        experiments_of_paper,
        inputs_of_claims,
        source=lambda wildcards: workflow_files(SOURCES[wildcards.place]),
        parts=workflow_files("paper/style.typ", "paper/parts.typ", "paper/references.bib"),
    output:
        report(
            "results/{place}paper.pdf",
            caption="../report/caption.rst",
            category="Paper",
            labels={"document": "{place}paper"},
        ),
    log:
        "results/logs/report/{place}paper.log",
    benchmark:
        "results/benchmarks/jobs/{place}paper.tsv"
    conda:
        "../../envs/report.yaml"
    params:
        caption=caption_of("paper"),
        source=source_of,
        experiments=lambda wildcards: (
            [] if wildcards.place else [f"--experiment {name}" for name in REPORTED_EXPERIMENTS]
        ),
    message:
        "Typesetting {output}"
    shell:
        "python -m relora_study.report paper --source {input.source:q} {params.source} {params.experiments}"
        " --output {output:q} 2> >(tee {log:q} >&2)"


# Answers to checklists of reproducibility. They come from the files behind tables, and not from the tables: whoever makes
# the tables of an archive again has no token files, which this page reads.
rule reproducibility:
    input:
        report_inputs,
        all_experiment_inputs,
        "results/data/tokens",
        workflow_files("resources/datasets.yaml", "resources/licences.yaml"),
        "results/settings/whole.yaml",
    output:
        page="results/reproducibility.md",
        web=report(
            "results/reproducibility.html",
            caption="../report/caption.rst",
            category="Reproducibility",
            labels={"document": "reproducibility"},
        ),
    log:
        "results/logs/report/reproducibility.log",
    benchmark:
        "results/benchmarks/jobs/reproducibility.tsv"
    conda:
        "../../envs/report.yaml"
    params:
        caption=rst(CAPTIONS["reproducibility"]["reproducibility"]),
    message:
        "Answering checklists of reproducibility"
    shell:
        "python -m relora_study.report reproducibility --output {output.page:q} 2> >(tee {log:q} >&2)"


# The outcome as text, which a run ends with.
rule summary:
    input:
        report_inputs,
    output:
        "results/summary.txt",
    log:
        "results/logs/report/summary.log",
    benchmark:
        "results/benchmarks/jobs/summary.tsv"
    conda:
        "../../envs/report.yaml"
    message:
        "The outcome, {output}"
    shell:
        "python -m relora_study.report summary --output {output:q} 2> >(tee {log:q} >&2)"


# The first page of the web report; workflow/report/workflow.rst includes it.
rule landing:
    input:
        inputs_of_report,
    output:
        "results/{place}landing.rst",
    log:
        "results/logs/report/{place}landing.log",
    benchmark:
        "results/benchmarks/jobs/{place}landing.tsv"
    conda:
        "../../envs/report.yaml"
    params:
        source=source_of,
    message:
        "The web report's first page, {output}"
    shell:
        "python -m relora_study.report landing {params.source} --output {output:q} 2> >(tee {log:q} >&2)"
