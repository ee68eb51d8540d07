rule fetch:
    input:
        settings="results/settings/data.yaml",
    output:
        directory("results/data/download"),
    log:
        "results/logs/data/fetch.log",
    benchmark:
        "results/benchmarks/jobs/fetch.tsv"
    retries: 2
    localrule: True
    conda:
        "../../envs/data.yaml"
    message:
        "Fetching the corpus"
    shell:
        "python -m relora_study.data fetch --settings {input.settings:q} --output {output:q} 2> >(tee {log:q} >&2)"


rule documents:
    input:
        code("data"),
        users_files("documents"),
        settings="results/settings/data.yaml",
        download="results/data/download",
    output:
        directory("results/data/documents"),
    log:
        "results/logs/data/documents.log",
    benchmark:
        "results/benchmarks/jobs/documents.tsv"
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=3000,
        runtime=60,
    message:
        "Splitting documents into train and held-out"
    shell:
        "python -m relora_study.data documents --settings {input.settings:q} --download {input.download:q}"
        " --output {output:q} 2> >(tee {log:q} >&2)"


rule tokens:
    input:
        code("data"),
        settings="results/settings/tokens.yaml",
        documents="results/data/documents",
        tokenizer="results/data/tokenizer",
    output:
        directory("results/data/tokens"),
    log:
        "results/logs/data/tokens.log",
    benchmark:
        "results/benchmarks/jobs/tokens.tsv"
    conda:
        "../../envs/data.yaml"
    threads: 8
    resources:
        mem_mb=3000,
        runtime=60,
    message:
        "Packing token ids"
    shell:
        "python -m relora_study.data tokens --settings {input.settings:q} --documents {input.documents:q}"
        " --tokenizer {input.tokenizer:q} --threads {threads} --output {output:q} 2> >(tee {log:q} >&2)"
