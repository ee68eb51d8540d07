# A corpus of texts is fetched, split and packed. A corpus of token ids is fetched and packed. Both have a tokenizer.
rule tokenizer:
    input:
        code("data"),
        users_files("tokenizer"),
        "results/data/documents" if STUDY.data.tokenizer.source == "train" else [],
        settings="results/settings/tokens.yaml",
    output:
        directory("results/data/tokenizer"),
    log:
        "results/logs/data/tokenizer.log",
    benchmark:
        "results/benchmarks/jobs/tokenizer.tsv"
    # A tokenizer from the Hub needs the network, which the nodes of a cluster may lack.
    localrule: STUDY.data.tokenizer.source == "hub"
    conda:
        "../../envs/data.yaml"
    threads: 8
    resources:
        mem_mb=3000,
        runtime=60,
    message:
        "Making the tokenizer"
    shell:
        "python -m relora_study.data tokenizer --settings {input.settings:q} --documents results/data/documents"
        " --threads {threads} --output {output:q} 2> >(tee {log:q} >&2)"


# Only the packed corpus shows whether it is enough for evaluation and readings. This rule checks that before training.
rule enough:
    input:
        settings="results/settings/enough.yaml",
        tokens="results/data/tokens",
    output:
        "results/data/enough.txt",
    log:
        "results/logs/data/enough.log",
    localrule: True
    conda:
        "../../envs/data.yaml"
    message:
        "Checking that the corpus is enough"
    shell:
        "python -m relora_study.data enough --settings {input.settings:q} --tokens {input.tokens:q}"
        " --output {output:q} 2> >(tee {log:q} >&2)"


if STUDY.data.source == "hub_pretokenized":

    include: "shards.smk"

else:

    include: "texts.smk"
