# The code is not an input: a comment must not cost a download and every training. `-R shards` forces a rerun.
rule shards:
    input:
        settings="results/settings/tokens.yaml",
    output:
        "results/data/shards.json",
    log:
        "results/logs/data/shards.log",
    benchmark:
        "results/benchmarks/jobs/shards.tsv"
    retries: 2
    # On the machine that runs Snakemake: the nodes of a cluster may lack a network.
    localrule: True
    conda:
        "../../envs/data.yaml"
    threads: 8
    resources:
        mem_mb=2000,
        runtime=60 + STUDY.data.hub_pretokenized.shards,
    # The shards are not outputs: Snakemake would delete them before a rerun, which goes on from them.
    params:
        folder="results/data/shards",
    message:
        "Getting the shards"
    shell:
        "python -m relora_study.data shards --settings {input.settings:q} --folder {params.folder:q}"
        " --threads {threads} --output {output:q} 2> >(tee {log:q} >&2)"


rule convert:
    input:
        settings="results/settings/tokens.yaml",
        shards="results/data/shards.json",
        # The manifest quotes the tokenizer's hash, on which the ids of this corpus do not depend.
        tokenizer=ancient("results/data/tokenizer"),
    output:
        directory("results/data/tokens"),
    log:
        "results/logs/data/convert.log",
    benchmark:
        "results/benchmarks/jobs/convert.tsv"
    conda:
        "../../envs/data.yaml"
    threads: 8
    resources:
        mem_mb=4000,
        runtime=60 + STUDY.data.hub_pretokenized.shards // 4,
    message:
        "Converting the shards"
    shell:
        "python -m relora_study.data convert --settings {input.settings:q} --shards {input.shards:q}"
        " --tokenizer {input.tokenizer:q} --threads {threads} --output {output:q} 2> >(tee {log:q} >&2)"
