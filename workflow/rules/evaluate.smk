import shlex


rule minimal_pairs:
    input:
        code("evaluate"),
        users_files("minimal_pairs"),
        "results/data/documents" if STUDY.evaluation.minimal_pairs.source == "templated" else [],
        settings="results/settings/evaluation.yaml",
    output:
        directory("results/evaluation/minimal_pairs"),
    log:
        "results/logs/evaluate/minimal_pairs.log",
    benchmark:
        "results/benchmarks/jobs/minimal_pairs.tsv"
    conda:
        "../../envs/train.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "Collecting the minimal pairs"
    shell:
        "python -m relora_study.evaluate minimal-pairs --settings {input.settings:q} --documents results/data/documents"
        " --output {output:q} 2> >(tee {log:q} >&2)"


rule texts:
    input:
        code("evaluate"),
        users_files("texts"),
        "results/data/documents" if STUDY.evaluation.perplexity.source == "held_out" else [],
        settings="results/settings/evaluation.yaml",
        # The rule reads the vocabulary alone, and checks lists of ids against it.
        tokenizer="results/data/tokenizer",
    output:
        "results/evaluation/texts.parquet",
    log:
        "results/logs/evaluate/texts.log",
    benchmark:
        "results/benchmarks/jobs/texts.tsv"
    # Texts from the Hub need the network, which the nodes of a cluster may lack.
    localrule: STUDY.evaluation.perplexity.source == "hub"
    conda:
        "../../envs/train.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "Collecting the texts for perplexity"
    shell:
        "python -m relora_study.evaluate texts --settings {input.settings:q} --documents results/data/documents"
        " --tokenizer {input.tokenizer:q} --output {output:q} 2> >(tee {log:q} >&2)"


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
        suites="",
        cell=subpath(input.manifest, parent=True),
    message:
        "Held-out loss of {wildcards.cell}"
    shell:
        "python -m relora_study.evaluate {params.command} --settings {input.settings:q} --cell {params.cell:q}"
        " --data results/data {params.suites} --threads {threads} --output {output:q} 2> >(tee {log:q} >&2)"


# Every checkpoint of a cell of the study.
use rule held_out as evaluate with:
    input:
        rules.held_out.input,
        manifest="results/cells/{cell}/manifest.json",
        settings="results/settings/measurement.yaml",
        pairs="results/evaluation/minimal_pairs",
        texts="results/evaluation/texts.parquet",
    output:
        "results/cells/{cell}/evaluation.csv",
    log:
        "results/logs/evaluate/{cell}.log",
    benchmark:
        "results/benchmarks/jobs/evaluate-{cell}.tsv"
    params:
        command="cell",
        suites=lambda wildcards, input: shlex.join(["--pairs", input.pairs, "--texts", input.texts]),
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
