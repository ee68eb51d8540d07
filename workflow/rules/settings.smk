# Each stage's settings are a file of their own, so that a changed key reruns only what reads it. What they must hold is
# staged at each start (relora_study/settings.py); a job finds its settings in the file and nowhere else.
rule section_settings:
    input:
        staged("settings/{section}.yaml"),
    output:
        "results/settings/{section}.yaml",
    log:
        "results/logs/settings/{section}.log",
    wildcard_constraints:
        section="study|data|tokens|enough|evaluation|measurement|dynamics|report|runtime|sweeps|whole",
    conda:
        "../../envs/data.yaml"
    message:
        "Settings: {wildcards.section}"
    shell:
        "tail -n +2 {input:q} > {output:q} 2> {log:q}"


rule cell_settings:
    input:
        staged("cells/{cell}/config.yaml"),
    output:
        "results/cells/{cell}/config.yaml",
    log:
        "results/logs/settings/{cell}.log",
    wildcard_constraints:
        cell=one_of(name for name in ALL_CELLS if name not in TUNED),
    conda:
        "../../envs/data.yaml"
    message:
        "Settings: {wildcards.cell}"
    shell:
        "tail -n +2 {input:q} > {output:q} 2> {log:q}"
