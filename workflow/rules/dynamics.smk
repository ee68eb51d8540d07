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
    resources:
        mem_mb=by_cell(reading_megabytes, STUDY.dynamics.batch_sequences * STUDY.model.context_length),
        runtime=by_cell(reading_minutes),
        gpu=int(STUDY.runtime.device == "cuda"),
    params:
        cell=subpath(input.manifest, parent=True),
    message:
        "Taking the spectra of {wildcards.cell}"
    shell:
        "python -m relora_study.dynamics cell --settings {input.settings:q} --cell {params.cell:q} --data results/data"
        " --threads {threads} --output {output:q} 2> >(tee {log:q} >&2)"
