import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

PACKAGE = Path(workflow.basedir) / "workflow" / "relora_study"
sys.path.insert(0, str(PACKAGE.parent))
# The package is run in place: every job finds it here, in the venv, in conda and on a cluster's node.
os.environ["PYTHONPATH"] = str(PACKAGE.parent)

from relora_study.config import cells, check
from relora_study.errors import UserError
from relora_study.files import write_yaml

try:
    STUDY = check(config, [*workflow.configfiles])
except UserError as error:
    raise WorkflowError(f"configuration: {error}") from None

CELLS = cells(STUDY)


wildcard_constraints:
    cell="|".join(CELLS),


def code(*places):
    """The modules of a stage, as inputs: a change to them reruns that stage alone."""
    files = [file for place in places for file in sorted((PACKAGE / place).rglob("*.py"))]
    return [os.path.relpath(file) for file in files]


def section(wildcards):
    """What one section's settings file holds."""
    return getattr(STUDY, wildcards.section).model_dump()


rule section_settings:
    message:
        "Settings: {wildcards.section}"
    params:
        values=section,
    output:
        "results/settings/{section}.yaml",
    wildcard_constraints:
        section="study|data|evaluation|dynamics|report|runtime",
    run:
        write_yaml(output[0], params.values)


rule cell_settings:
    message:
        "Settings: {wildcards.cell}"
    params:
        values=lambda wildcards: CELLS[wildcards.cell].model_dump(),
    output:
        "results/cells/{cell}/config.yaml",
    run:
        write_yaml(output[0], params.values)
