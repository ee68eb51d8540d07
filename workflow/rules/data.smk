# A corpus of texts is fetched, split and packed; one of token ids is only fetched and packed. The tokenizer is either's.
rule tokenizer:
    input:
        code("data"),
        own_files("tokenizer"),
        "results/data/documents" if STUDY.data.tokenizer.source == "train" else [],
        settings="results/settings/tokens.yaml",
    output:
        directory("results/data/tokenizer"),
    log:
        "results/logs/data/tokenizer.log",
    benchmark:
        "results/benchmarks/jobs/tokenizer.tsv"
    # From the Hub it needs the network, which a cluster's nodes may not have.
    localrule: STUDY.data.tokenizer.source == "hub"
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
    message:
        "Making the tokenizer"
    shell:
        "python -m relora_study.data tokenizer --settings {input.settings:q} --documents results/data/documents"
        " --output {output:q} 2> >(tee {log:q} >&2)"


if STUDY.data.source == "hub_pretokenized":

    include: "shards.smk"

else:

    include: "texts.smk"
