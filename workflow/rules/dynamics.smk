rule dynamics:
    input:
        code("dynamics"),
        "results/data/tokens",
        manifest="results/cells/{cell}/manifest.json",
        settings="results/settings/dynamics.yaml",
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
        gpu=int(STUDY.runtime.device == "cuda"),
    params:
        cell=subpath(input.manifest, parent=True),
        cycle_steps=STUDY.cycle_steps,
    message:
        "Taking the spectra of {wildcards.cell}"
    shell:
        "python -m relora_study.dynamics cell --settings {input.settings:q} --cell {params.cell:q} --data results/data"
        " --cycle-steps {params.cycle_steps} --threads {threads} --output {output:q} 2> >(tee {log:q} >&2)"
