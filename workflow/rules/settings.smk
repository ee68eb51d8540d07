# Settings, listings of code and of the user's files: each a small text that the start of a run knows
# (relora_study/session/start.py). A job reads its settings from these files alone.
rule settings:
    input:
        template_of,
    output:
        "results/{file}",
    log:
        "results/logs/settings/{file}.log",
    wildcard_constraints:
        file=r"settings/[^/]+|cells/[^/]+/config\.yaml|tuning/[^/]+/[^/]+\.yaml|tuning/[^/]+/[^/]+/config\.yaml",
    params:
        text=lambda wildcards: text_of(wildcards.file),
    message:
        "Settings: {wildcards.file}"
    template_engine:
        "jinja2"


# A search settles the settings of a cell that it tuned.
ruleorder: tuned_settings > settings
