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
            labels=labels_of("figure", "PDF, for print"),
        ),
        report(
            "results/{place}figures/{name}.png",
            caption="../report/caption.rst",
            category=category_of(0),
            subcategory=chapter_of,
            labels=labels_of("figure", "PNG"),
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
            labels=labels_of("table", "CSV"),
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
            category="1 Paper",
            labels={"document": "the paper"},
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
        workflow_files(*(f"workflow/report/reproducibility.{ending}" for ending in ("jinja", "md", "html"))),
        "results/settings/whole.yaml",
    output:
        page="results/reproducibility.md",
        web=report(
            "results/reproducibility.html",
            caption="../report/caption.rst",
            category="5 Reproducibility",
            labels={"document": "checklists of reproducibility"},
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


# The outcome on one screen: as text, which a run ends with, and as Markdown.
rule summary:
    input:
        report_inputs,
        workflow_files("workflow/report/summary.txt", "workflow/report/summary.md"),
    output:
        text="results/summary.txt",
        markdown="results/summary.md",
    log:
        "results/logs/report/summary.log",
    benchmark:
        "results/benchmarks/jobs/summary.tsv"
    conda:
        "../../envs/report.yaml"
    message:
        "The outcome, {output.text}"
    shell:
        "python -m relora_study.report summary --output {output.text:q} 2> >(tee {log:q} >&2)"


# Every figure and every table with its caption, a page each, because Snakemake shows a caption apart from its figure.
rule pages:
    input:
        expand("results/figures/{name}.png", name=[*CAPTIONS["figures"], *EXPERIMENTS_OF_REPORT]),
        expand("results/tables/{name}.csv", name=[*CAPTIONS["tables"], *EXPERIMENTS_OF_REPORT]),
        REPORT_CODE,
        workflow_files("workflow/report/page.html", "workflow/report/captions.yaml"),
    output:
        report(
            "results/figures.html",
            caption="../report/caption.rst",
            category=CATEGORIES[""][0],
            subcategory="0 All figures",
            labels={"figure": "All figures, with captions", "format": "page"},
        ),
        report(
            "results/tables.html",
            caption="../report/caption.rst",
            category=CATEGORIES[""][1],
            labels={"table": "All tables, which a click sorts", "format": "page"},
        ),
    log:
        "results/logs/report/pages.log",
    benchmark:
        "results/benchmarks/jobs/pages.tsv"
    conda:
        "../../envs/report.yaml"
    params:
        caption=rst(CAPTIONS["pages"]["pages"]),
        experiments=[f"--experiment {name}" for name in REPORTED_EXPERIMENTS],
    message:
        "The pages of all figures and tables"
    shell:
        "python -m relora_study.report pages --output results {params.experiments} 2> >(tee {log:q} >&2)"


# Every curve, for a reader to choose from: one page with its own JavaScript.
rule explore:
    input:
        report_inputs,
        workflow_files("workflow/report/explore.js"),
    output:
        report(
            "results/explore.html",
            caption="../report/caption.rst",
            category="2 Explore",
            labels={"document": "every curve, to choose from"},
        ),
    log:
        "results/logs/report/explore.log",
    benchmark:
        "results/benchmarks/jobs/explore.tsv"
    conda:
        "../../envs/report.yaml"
    params:
        caption=rst(CAPTIONS["explore"]["explore"]),
    message:
        "The interactive page, {output}"
    shell:
        "python -m relora_study.report explore --output {output:q} 2> >(tee {log:q} >&2)"


# The first page of the web report; workflow/report/workflow.rst includes it.
rule landing:
    input:
        inputs_of_report,
        lambda wildcards: [] if wildcards.place else "results/figures/gap_over_training.png",
        workflow_files("workflow/report/first_page.rst", "workflow/report/first_page_published.rst"),
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
