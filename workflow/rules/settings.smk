rule section_settings:
    output:
        "results/settings/{section}.yaml",
    log:
        "results/logs/settings/{section}.log",
    wildcard_constraints:
        section="study|data|evaluation|dynamics|report|runtime",
    params:
        values=section,
    message:
        "Settings: {wildcards.section}"
    run:
        write_yaml(output[0], params.values)


rule cell_settings:
    output:
        "results/cells/{cell}/config.yaml",
    log:
        "results/logs/settings/{cell}.log",
    params:
        values=lambda wildcards: CELLS[wildcards.cell].model_dump(),
    message:
        "Settings: {wildcards.cell}"
    run:
        write_yaml(output[0], params.values)
