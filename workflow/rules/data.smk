rule fetch:
    message:
        "Fetching the corpus"
    input:
        settings="results/settings/data.yaml",
    output:
        directory("results/data/download"),
    log:
        "results/logs/data/fetch.log",
    benchmark:
        "results/benchmarks/jobs/fetch.tsv"
    conda:
        "../../envs/data.yaml"
    retries: 2
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    shell:
        "python -m relora_study.data fetch --settings {input.settings:q} --output {output:q} 2> {log:q}"


rule documents:
    message:
        "Splitting documents into train and held-out"
    input:
        code("data"),
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
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
    shell:
        "python -m relora_study.data documents --settings {input.settings:q} --download {input.download:q}"
        " --output {output:q} 2> {log:q}"


rule tokenizer:
    message:
        "Training the tokenizer"
    input:
        code("data"),
        settings="results/settings/data.yaml",
        documents="results/data/documents",
    params:
        vocab_size=STUDY.model.vocab_size,
    output:
        directory("results/data/tokenizer"),
    log:
        "results/logs/data/tokenizer.log",
    benchmark:
        "results/benchmarks/jobs/tokenizer.tsv"
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
    shell:
        "python -m relora_study.data tokenizer --settings {input.settings:q} --documents {input.documents:q}"
        " --vocab-size {params.vocab_size} --output {output:q} 2> {log:q}"


rule tokens:
    message:
        "Packing token ids"
    input:
        code("data"),
        settings="results/settings/data.yaml",
        documents="results/data/documents",
        tokenizer="results/data/tokenizer",
    params:
        context_length=STUDY.model.context_length,
    output:
        directory("results/data/tokens"),
    log:
        "results/logs/data/tokens.log",
    benchmark:
        "results/benchmarks/jobs/tokens.tsv"
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
    shell:
        "python -m relora_study.data tokens --settings {input.settings:q} --documents {input.documents:q}"
        " --tokenizer {input.tokenizer:q} --context-length {params.context_length} --output {output:q} 2> {log:q}"
