# Each stage's settings are a file of their own, so that a changed key reruns only what reads it. What they must hold is
# staged at each start (relora_study/settings.py); a job finds its settings in the file and nowhere else.
rule section_settings:
    input:
        staged_settings("{section}"),
    output:
        "results/settings/{section}.yaml",
    log:
        "results/logs/settings/{section}.log",
    wildcard_constraints:
        section="study|data|tokens|enough|evaluation|measurement|dynamics|report|runtime|whole",
    conda:
        "../../envs/data.yaml"
    message:
        "Settings: {wildcards.section}"
    shell:
        "tail -n +2 {input:q} > {output:q} 2> {log:q}"


rule cell_settings:
    input:
        staged_cell("{cell}"),
    output:
        "results/cells/{cell}/config.yaml",
    log:
        "results/logs/settings/{cell}.log",
    conda:
        "../../envs/data.yaml"
    message:
        "Settings: {wildcards.cell}"
    shell:
        "tail -n +2 {input:q} > {output:q} 2> {log:q}"
