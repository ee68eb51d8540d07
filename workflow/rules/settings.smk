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
        # The search settles the settings of a cell that it tunes (experiments.smk). A list of all files would be slower.
        file=rf"settings/[^/]+|cells/(?!(?:{one_of(TUNED)})/)[^/]+/config\.yaml|tuning/[^/]+/[^/]+\.yaml|tuning/[^/]+/[^/]+/config\.yaml",
    params:
        text=lambda wildcards: text_of(wildcards.file),
    message:
        "Settings: {wildcards.file}"
    template_engine:
        "jinja2"
