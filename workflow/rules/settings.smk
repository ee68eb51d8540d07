# Each stage has a settings file, so a changed key reruns only the jobs that read it. A job reads its settings from this
# file alone. Each start stages the contents of the files (relora_study/session/staging.py).
rule section_settings:
    input:
        staged("settings/{section}.yaml"),
    output:
        "results/settings/{section}.yaml",
    log:
        "results/logs/settings/{section}.log",
    wildcard_constraints:
        section="study|data|tokens|enough|yardsticks|evaluation|measurement|dynamics|report|runtime|sweeps|whole",
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


rule code_listing:
    input:
        staged_listing("code-{stage}"),
    output:
        "results/settings/code-{stage}.txt",
    log:
        "results/logs/settings/code-{stage}.log",
    conda:
        "../../envs/data.yaml"
    message:
        "Listing the code of {wildcards.stage}"
    shell:
        "cp {input:q} {output:q} 2> {log:q}"
