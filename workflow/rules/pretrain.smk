rule pretrain:
    input:
        config="results/cells/{cell}/config.yaml",
        tokens="results/data/tokens",
        # Mistakes in the user's texts, pairs and corpus are found before anything trains; no more is taken of these.
        enough=ancient("results/data/enough.txt"),
        texts=ancient("results/evaluation/texts.parquet"),
        pairs=ancient("results/evaluation/minimal_pairs"),
    output:
        manifest="results/cells/{cell}/manifest.json",
    log:
        "results/logs/pretrain/{cell}.log",
    benchmark:
        "results/benchmarks/jobs/pretrain-{cell}.tsv"
    priority: 10
    # A run that stops itself at train.time_limit exits with code 75, and the next try goes on from its state. How often
    # it is tried is the profile's to say: Snakemake would follow a rule's own `retries` inside one SLURM job
    # (snakemake-executor-plugin-slurm, issue 284).
    conda:
        "../../envs/train.yaml"
    threads: STUDY.runtime.processes_per_node
    resources:
        **node_resources(STUDY.runtime),
        mem_mb=by_cell(pretrain_megabytes),
        runtime=by_cell(pretrain_minutes),
        gpu=STUDY.runtime.processes * (STUDY.runtime.device == "cuda"),
    # The code is not an input: a comment must not cost GPU days. After changing it, delete a cell's folder to train anew.
    # Checkpoints and states are not outputs: Snakemake would delete them, and with them what a rerun continues from.
    params:
        launch=launch_command(STUDY.runtime, STUDY.runtime.processes_per_node),
    message:
        "Pretraining {wildcards.cell}"
    # A scheduler and Ctrl-C signal every process of a job. So no shell stays that would die of it and take the training
    # along while it finishes its step, and the log's end stays open until the training has closed its own.
    shell:
        "exec {params.launch} relora_study.train cell --config {input.config:q} --tokens {input.tokens:q}"
        " --threads {threads} --wait 2> >(trap '' TERM INT USR1; exec tee {log:q} >&2)"
