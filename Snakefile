"""The study, from raw text to the paper. The rules are in workflow/rules; they run the package workflow/relora_study."""

from snakemake.utils import min_version

min_version("9.27")


include: "workflow/rules/package.smk"


# Of the folder that Snakemake runs in; where that has none (`--directory`), the default study's.
configfile: "config.yaml" if Path("config.yaml").exists() else str(ROOT / "config.yaml")


report: "workflow/report/workflow.rst"


include: "workflow/rules/engine.smk"
include: "workflow/rules/common.smk"
include: "workflow/rules/experiment_inputs.smk"
include: "workflow/rules/report_inputs.smk"
include: "workflow/rules/settings.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/dynamics.smk"
include: "workflow/rules/experiments.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/archive.smk"
include: "workflow/rules/session.smk"


localrules:
    all,
    published_only,
    settings,
    tuned_settings,
    selection,


rule all:
    default_target: True
    input:
        expand("results/figures/experiment_{name}.pdf", name=REPORTED_EXPERIMENTS),
        expand("results/tables/experiment_{name}.csv", name=REPORTED_EXPERIMENTS),
        readings,  # a target, so that a cell that somebody deleted is trained again
        "results/paper.pdf",
        "results/summary.txt",
        "results/summary.md",
        "results/explore.html",
        "results/figures.html",
        "results/landing.rst",
        "results/reproducibility.md",
        expand("results/figures/{name}.pdf", name=CAPTIONS["figures"]),
        expand("results/tables/{name}.csv", name=CAPTIONS["tables"]),


rule published_only:
    input:
        "results/published/paper.pdf",
        "results/published/landing.rst",
        expand("results/published/figures/{name}.pdf", name=PUBLISHED["figures"]),
        expand("results/published/tables/{name}.csv", name=PUBLISHED["tables"]),


onstart:
    begin()


onsuccess:
    finish()


onerror:
    PROGRESS.stop()
