# Settings, listings of code and of the user's files: each a small text that the start of a run knows
# (relora_study/session/start.py). A job reads its settings from these files alone.
from functools import cache

TEXTS = texts_at_start(STUDY, CELLS, EXPERIMENTS)


@cache
def text_of(file):
    """The text that the file of this path in results/ should have."""
    return TEXTS[file]()


def template_of(wildcards):
    """The template, newer than the file, where its text changed. Another reason to run is that the file is missing."""
    return ancient(str(TEMPLATE)) if holds(RESULTS / wildcards.file, text_of(wildcards.file)) else str(TEMPLATE)


if starts_the_run():
    renew_template()


rule settings:
    input:
        template_of,
    output:
        "results/{file}",
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
