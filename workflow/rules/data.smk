# A corpus of texts is fetched, split and packed; one of token ids is only fetched and packed. The tokenizer is either's.
rule tokenizer:
    input:
        code("data"),
        own_files(STUDY.data.tokenizer.name, STUDY.data.tokenizer.source == "path"),
        "results/data/documents" if STUDY.data.tokenizer.source == "train" else [],
        settings="results/settings/data.yaml",
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
    params:
        vocab_size=STUDY.model.vocab_size,
    message:
        "Making the tokenizer"
    shell:
        "python -m relora_study.data tokenizer --settings {input.settings:q} --documents results/data/documents"
        " --vocab-size {params.vocab_size} --output {output:q} 2> >(tee {log:q} >&2)"


# What only the packed corpus tells, and readings after training would fail on, is said before anything trains.
rule enough:
    input:
        tokens="results/data/tokens",
    output:
        "results/data/enough.txt",
    log:
        "results/logs/data/enough.log",
    localrule: True
    conda:
        "../../envs/data.yaml"
    params:
        context_length=STUDY.model.context_length,
        train=STUDY.train.steps * STUDY.train.batch_size,
        held_out=STUDY.dynamics.batch_sequences,
    message:
        "Checking that the corpus is enough"
    shell:
        "python -m relora_study.data enough --tokens {input.tokens:q} --context-length {params.context_length}"
        " --train-sequences {params.train} --held-out-sequences {params.held_out} --output {output:q} 2> >(tee {log:q} >&2)"


if STUDY.data.source == "hub_pretokenized":

    include: "shards.smk"

else:

    include: "texts.smk"
