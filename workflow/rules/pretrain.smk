rule pretrain:
    input:
        config="results/cells/{cell}/config.yaml",
        tokens="results/data/tokens",
    output:
        manifest="results/cells/{cell}/manifest.json",
    log:
        "results/logs/pretrain/{cell}.log",
    benchmark:
        "results/benchmarks/jobs/pretrain-{cell}.tsv"
    priority: 10
    # A run that stops itself at train.time_limit exits with code 75; the next try goes on from its state.
    retries: 20 if STUDY.train.time_limit else 0
    conda:
        "../../envs/train.yaml"
    threads: STUDY.runtime.processes
    resources:
        mem_mb=2000,
        runtime=240,
        gpu=STUDY.runtime.processes * (STUDY.runtime.device == "cuda"),
    # The code is not an input: a comment must not cost GPU days. Force a cell with `-R pretrain` after changing it.
    # Checkpoints and states are not outputs: Snakemake would delete them, and with them what a rerun continues from.
    params:
        launch=launcher(STUDY.runtime.processes),
    message:
        "Pretraining {wildcards.cell}"
    shell:
        "{params.launch} relora_study.train cell --config {input.config:q} --tokens {input.tokens:q} --threads {threads} --wait"
        " 2> >(tee {log:q} >&2)"
