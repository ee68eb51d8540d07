# `all` does not ask for the archive; `snakemake archive` does.
import importlib.metadata

FIGURES_OF_ARCHIVE = [*CAPTIONS["figures"], *EXPERIMENTS_OF_REPORT]


rule archive:
    input:
        readings,
        all_experiment_inputs,
        expand("results/figures/{name}.{format}", name=FIGURES_OF_ARCHIVE, format=["pdf", "png"]),
        expand("results/tables/{name}.csv", name=[*CAPTIONS["tables"], *EXPERIMENTS_OF_REPORT]),
        "results/paper.pdf",
        "results/summary.txt",
        "results/summary.md",
        "results/explore.html",
        "results/figures.html",
        "results/landing.rst",
        "results/reproducibility.md",
        tokens="results/data/tokens",
        study="results/settings/whole.yaml",
    output:
        "results/archive.tar.gz",
    log:
        "results/logs/archive.log",
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        engine=importlib.metadata.version("snakemake"),
    message:
        "Packing the results"
    shell:
        "python -m relora_study.sharing.archive pack --results results --study {input.study:q} --output {output:q}"
        " --engine {params.engine} 2> >(tee {log:q} >&2)"
