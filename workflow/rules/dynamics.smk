rule dynamics:
    message:
        "Taking the spectra of {wildcards.cell}"
    input:
        code("dynamics"),
        "results/cells/{cell}/manifest.json",
        "results/data/tokens",
        settings="results/settings/dynamics.yaml",
    params:
        cell="results/cells/{cell}",
    output:
        "results/cells/{cell}/dynamics.csv",
    log:
        "results/logs/dynamics/{cell}.log",
    benchmark:
        "results/benchmarks/jobs/dynamics-{cell}.tsv"
    conda:
        "../../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=120,
    shell:
        "python -m relora_study.dynamics cell --settings {input.settings:q} --cell {params.cell:q} --data results/data"
        " --threads {threads} --output {output:q} 2> {log:q}"
