# What the parts of the report are made from, and what Snakemake's own report says of them.
from relora_study.report.captions import title
from relora_study.report.escape import rst

CAPTIONS_IN = {"": CAPTIONS, "published/": PUBLISHED}
OURS = {"replication": "paper/paper.typ", "experiment": "paper/experiment.typ"}
SOURCES = {"": OURS[STUDY.report.kind], "published/": "paper/published.typ"}
EXPERIMENTS_OF_REPORT = [f"experiment_{name}" for name in REPORTED_EXPERIMENTS]
# Snakemake sorts categories and chapters by name, so those of our runs begin with a number.
CATEGORIES = {"": ("3 Figures", "4 Tables"), "published/": ("Published curves", "Published values")}


def inputs_of_report(wildcards):
    """The inputs of a part of either document: readings of our runs, or the published values."""
    return published_inputs(wildcards) if wildcards.place else report_inputs(wildcards)


def figures_of(wildcards):
    """The figures of the document."""
    return expand(
        "results/{place}figures/{name}.pdf", place=wildcards.place, name=CAPTIONS_IN[wildcards.place]["figures"]
    )


def experiments_of_paper(wildcards):
    """The figures and tables of sweeps and of the search, which the paper on our runs shows."""
    parts = ["figures/experiment_{name}.pdf", "tables/experiment_{name}.csv"]
    return [] if wildcards.place else expand([f"results/{part}" for part in parts], name=REPORTED_EXPERIMENTS)


def caption_of(kind):
    """The caption of a part of the ``kind`` "figures", "tables" or "paper", for the web report."""
    return lambda wildcards: rst(CAPTIONS_IN[wildcards.place][kind][getattr(wildcards, "name", kind)])


def category_of(number):
    """The category of figures (0) or tables (1) in the web report."""
    return lambda wildcards: CATEGORIES[wildcards.place][number]


def labels_of(kind, format):
    """The labels of a figure or a table in the web report: its title and the format of the file."""
    return lambda wildcards: {kind: title(wildcards.name), "format": format}


def chapter_of(wildcards):
    """The chapter of a figure in Snakemake's report, whose pages do not open a chapter without a name."""
    return CHAPTERS[wildcards.name]


def source_of(wildcards):
    """The option by which the command reads the published values."""
    return "--published" if wildcards.place else ""


def names_of(kind):
    """A constraint on names: the ``kind`` of parts that the document of the folder before the name has."""
    folder, published, ours = f"published/{kind}/", "|".join(PUBLISHED[kind]), "|".join(CAPTIONS[kind])
    return f"(?<={folder})({published})|(?<!{folder})({ours})"
