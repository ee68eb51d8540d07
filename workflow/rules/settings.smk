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
        file=one_of(TEXTS),  # the settings of a cell that a search tunes come from the search (experiments.smk)
    params:
        text=lambda wildcards: text_of(wildcards.file),
    message:
        "Settings: {wildcards.file}"
    template_engine:
        "jinja2"
