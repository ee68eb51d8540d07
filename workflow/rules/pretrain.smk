CELL_MANIFEST = "results/cells/{cell}/manifest.json"
CELL_SETTINGS = "results/cells/{cell}/config.yaml"


rule pretrain:
    input:
        config=CELL_SETTINGS,
        tokens="results/data/tokens",
        # These find mistakes in the user's texts, pairs and corpus before training. Training reads none of them.
        enough=before_training("results/data/enough.txt", CELL_MANIFEST, CELL_SETTINGS),
        tasks=before_training(expand("results/evaluation/{task}.parquet", task=TASKS), CELL_MANIFEST, CELL_SETTINGS),
    output:
        manifest=CELL_MANIFEST,
    log:
        "results/logs/pretrain/{cell}.log",
    benchmark:
        "results/benchmarks/jobs/pretrain-{cell}.tsv"
    priority: 10
    # A training that stops at train.time_limit exits with code 75, and the next try goes on from the saved state. The
    # profile sets the number of tries: with `retries` in the rule, Snakemake would retry inside one SLURM job
    # (snakemake-executor-plugin-slurm, issue 284).
    conda:
        "../../envs/train.yaml"
    threads: training_cores(STUDY.runtime)
    resources:
        **node_resources(STUDY.runtime),
        mem_mb=by_cell(pretrain_megabytes),
        runtime=by_cell(pretrain_minutes),
        gpu=STUDY.runtime.processes * (STUDY.runtime.device == "cuda"),
    # The code is not an input: a comment must not cost GPU days. Delete a cell's folder to train it with changed code.
    # Checkpoints and states are not outputs: Snakemake would delete them before a rerun, which goes on from them.
    params:
        launch=launch_command(STUDY.runtime, training_cores(STUDY.runtime)),
    message:
        "Pretraining {wildcards.cell}"
    # A scheduler and Ctrl-C signal every process of a job, and the training then finishes its step. `exec` leaves no
    # shell that would die at once and end the job. `tee` ignores the signals, so the log takes the last lines.
    # The session tells how far each training is (relora_study/session/progress.py), so it prints no lines of its own.
    shell:
        "export TQDM_DISABLE=1; exec {params.launch} relora_study.train cell --config {input.config:q} --tokens {input.tokens:q}"
        " --threads {threads} --wait 2> >(trap '' TERM INT USR1; exec tee {log:q} >&2)"
