rule task:
    input:
        code("evaluate"),
        task_inputs,
        settings="results/settings/evaluation.yaml",
    output:
        "results/evaluation/{task}.parquet",
    log:
        "results/logs/evaluate/task-{task}.log",
    benchmark:
        "results/benchmarks/jobs/task-{task}.tsv"
    wildcard_constraints:
        task=one_of(TASKS),
    # A download needs the network, which the nodes of a cluster may lack.
    localrule: any(task.source in ("hub", "url") for task in TASKS.values())
    conda:
        "../../envs/train.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "Collecting the task {wildcards.task}"
    shell:
        "python -m relora_study.evaluate collect --settings {input.settings:q} --task {wildcards.task}"
        " --documents results/data/documents --tokenizer results/data/tokenizer --output {output:q}"
        " 2> >(tee {log:q} >&2)"


# The held-out loss of every cell, of the study or of a sweep: its last checkpoint on each held-out document.
rule held_out:
    input:
        code("evaluate"),
        "results/data/tokenizer",
        "results/data/tokens",
        manifest="results/cells/{cell}/manifest.json",
        settings="results/settings/measurement.yaml",
    output:
        "results/cells/{cell}/held_out.csv",
    log:
        "results/logs/evaluate/{cell}-held_out.log",
    benchmark:
        "results/benchmarks/jobs/held_out-{cell}.tsv"
    conda:
        "../../envs/train.yaml"
    resources:
        mem_mb=by_cell(reading_megabytes, STUDY.evaluation.batch_tokens),
        runtime=by_cell(reading_minutes),
        gpu=int(STUDY.runtime.device == "cuda"),
    params:
        command="held-out",
        tasks="",
        cell=subpath(input.manifest, parent=True),
    message:
        "Held-out loss of {wildcards.cell}"
    shell:
        "python -m relora_study.evaluate {params.command} --settings {input.settings:q} --cell {params.cell:q}"
        " --data results/data {params.tasks} --threads {threads} --output {output:q} 2> >(tee {log:q} >&2)"


# Every checkpoint of a cell of the study.
use rule held_out as evaluate with:
    input:
        rules.held_out.input,
        manifest="results/cells/{cell}/manifest.json",
        settings="results/settings/measurement.yaml",
        tasks=expand("results/evaluation/{task}.parquet", task=TASKS),
    output:
        "results/cells/{cell}/evaluation.csv",
    log:
        "results/logs/evaluate/{cell}.log",
    benchmark:
        "results/benchmarks/jobs/evaluate-{cell}.tsv"
    params:
        command="cell",
        tasks="--tasks results/evaluation",
        cell=subpath(input.manifest, parent=True),
    message:
        "Evaluating {wildcards.cell}"


# What counted n-grams score on the same documents: lines that a language model should end below.
rule yardsticks:
    input:
        code("evaluate"),
        settings="results/settings/yardsticks.yaml",
        tokens="results/data/tokens",
    output:
        "results/evaluation/yardsticks.csv",
    log:
        "results/logs/evaluate/yardsticks.log",
    benchmark:
        "results/benchmarks/jobs/yardsticks.tsv"
    conda:
        "../../envs/train.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    message:
        "Counting n-grams as yardsticks"
    shell:
        "python -m relora_study.evaluate yardsticks --settings {input.settings:q} --tokens {input.tokens:q}"
        " --output {output:q} 2> >(tee {log:q} >&2)"
