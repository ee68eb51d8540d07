# Each rule serves two documents. The wildcard `place` is empty for our runs, with parts in results/, and `published/`
# for the published values, with parts in results/published/ that need no run.
from relora_study.report.escape import rst

CAPTIONS_IN = {"": CAPTIONS, "published/": PUBLISHED}
SOURCES = {"": "paper/paper.typ", "published/": "paper/published.typ"}
CATEGORIES = {"": ("Figures", "Tables"), "published/": ("Published curves", "Published values")}


wildcard_constraints:
    place="(published/)?",


def inputs_of_report(wildcards):
    """The inputs of a part of either document: readings of our runs, or the published values."""
    return published_inputs(wildcards) if wildcards.place else report_inputs(wildcards)


def figures_of(wildcards):
    """The figures of the document."""
    return expand(
        "results/{place}figures/{name}.pdf", place=wildcards.place, name=CAPTIONS_IN[wildcards.place]["figures"]
    )


def caption_of(kind):
    """The caption of a part of the ``kind`` "figures", "tables" or "paper", for the web report."""
    return lambda wildcards: rst(CAPTIONS_IN[wildcards.place][kind][getattr(wildcards, "name", kind)])


def category_of(number):
    """The category of figures (0) or tables (1) in the web report."""
    return lambda wildcards: CATEGORIES[wildcards.place][number]


def chapter_of(wildcards):
    """The chapter of a figure of our runs in the web report."""
    return "" if wildcards.place else CHAPTERS[wildcards.name]


def source_of(wildcards):
    """The option by which the command reads the published values."""
    return "--published" if wildcards.place else ""


def names_of(kind):
    """A constraint on names: the ``kind`` of parts that the document of the folder before the name has."""
    folder, published, ours = f"published/{kind}/", "|".join(PUBLISHED[kind]), "|".join(CAPTIONS[kind])
    return f"(?<={folder})({published})|(?<!{folder})({ours})"


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
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
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
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
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
        source=lambda wildcards: workflow_files(SOURCES[wildcards.place]),
        parts=workflow_files("paper/style.typ", "paper/references.bib"),
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
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        caption=caption_of("paper"),
        source=source_of,
    message:
        "Typesetting {output}"
    shell:
        "python -m relora_study.report paper --source {input.source:q} {params.source}"
        " --output {output:q} 2> >(tee {log:q} >&2)"


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
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        source=source_of,
    message:
        "The web report's first page, {output}"
    shell:
        "python -m relora_study.report landing {params.source} --output {output:q} 2> >(tee {log:q} >&2)"
