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


rule against_full_rank:
    input:
        code("dynamics"),
        "results/data/tokens",
        manifest="results/cells/{cell}/manifest.json",
        partner=lambda wildcards: f"results/cells/{PARTNERS[wildcards.cell]}/manifest.json",
        settings="results/settings/dynamics.yaml",
    output:
        "results/cells/{cell}/against_full_rank.csv",
    log:
        "results/logs/against_full_rank/{cell}.log",
    benchmark:
        "results/benchmarks/jobs/against_full_rank-{cell}.tsv"
    wildcard_constraints:
        cell=one_of(PARTNERS),
    conda:
        "../../envs/train.yaml"
    resources:
        mem_mb=by_cell(reading_megabytes, STUDY.dynamics.batch_sequences * STUDY.model.context_length),
        runtime=by_cell(reading_minutes),
        gpu=int(STUDY.runtime.device == "cuda"),
    params:
        cell=subpath(input.manifest, parent=True),
        partner=subpath(input.partner, parent=True),
    message:
        "Comparing {wildcards.cell} with full rank"
    shell:
        "python -m relora_study.dynamics against --settings {input.settings:q} --cell {params.cell:q}"
        " --reference {params.partner:q} --data results/data --threads {threads} --output {output:q} 2> >(tee {log:q} >&2)"


rule predictors:
    input:
        REPORT_CODE,
        "results/settings/labels.yaml",
        expand("results/cells/{cell}/held_out.csv", cell=dict.fromkeys([*PARTNERS, *PARTNERS.values()])),
        expand(
            "results/cells/{cell}/{file}", cell=PARTNERS, file=["config.yaml", "dynamics.csv", "against_full_rank.csv"]
        ),
        partners="results/settings/partners.yaml",
    output:
        "results/tables/predictors.csv",
        "results/tables/predictors.cells.csv",
    log:
        "results/logs/report/predictors.log",
    conda:
        "../../envs/report.yaml"
    params:
        folder=parent_of_output,
    message:
        "Which readings go with the gap to full rank"
    shell:
        "python -m relora_study.report predictors --output {params.folder:q}/predictors 2> >(tee {log:q} >&2)"
