# Each section's settings are a file of their own, so that a changed key reruns only what reads it.
rule section_settings:
    output:
        "results/settings/{section}.yaml",
    log:
        "results/logs/settings/{section}.log",
    wildcard_constraints:
        section="study|data|evaluation|dynamics|report|runtime",
    conda:
        "../../envs/data.yaml"
    params:
        yaml=lambda wildcards: as_yaml(getattr(STUDY, wildcards.section)),
    message:
        "Settings: {wildcards.section}"
    shell:
        "printf %s {params.yaml:q} > {output:q} 2> {log:q}"


rule cell_settings:
    output:
        "results/cells/{cell}/config.yaml",
    log:
        "results/logs/settings/{cell}.log",
    conda:
        "../../envs/data.yaml"
    params:
        yaml=lambda wildcards: as_yaml(CELLS[wildcards.cell]),
    message:
        "Settings: {wildcards.cell}"
    shell:
        "printf %s {params.yaml:q} > {output:q} 2> {log:q}"
