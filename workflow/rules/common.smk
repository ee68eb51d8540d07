import os
import subprocess
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

PACKAGE = Path(workflow.basedir) / "workflow" / "relora_study"
sys.path.insert(0, str(PACKAGE.parent))
# The package is run in place: every job finds it here, in the venv, in conda and on a cluster's node.
os.environ.update(PYTHONPATH=str(PACKAGE.parent))

from relora_study.config import cells, check
from relora_study.errors import UserError

try:
    STUDY = check(config, [*workflow.configfiles])
except UserError as error:
    raise WorkflowError(f"configuration: {error}") from None

CELLS = cells(STUDY)
CAPTIONS = yaml.safe_load((PACKAGE.parent / "report" / "captions.yaml").read_text(encoding="utf-8"))


wildcard_constraints:
    cell="|".join(CELLS),


def code(*places):
    """The modules of a stage, as inputs: a change to them reruns that stage alone."""
    files = [file for place in places for file in sorted((PACKAGE / place).rglob("*.py"))]
    return [os.path.relpath(file) for file in files]


def as_yaml(settings):
    """What a settings file holds."""
    return yaml.safe_dump(settings.model_dump(), sort_keys=False)


def readings(wildcards):
    """Every file of every cell that the report may read."""
    return expand(
        "results/cells/{cell}/{file}",
        cell=CELLS,
        file=["config.yaml", "manifest.json", "evaluation.csv", "dynamics.csv"],
    )


# Floating-point operations a second that two cores of a 2020s laptop or server reach in these small models.
NOMINAL_FLOPS = 1.2e11


def announce():
    """Say what a study will cost before it starts; six operations a parameter and token (Kaplan et al. 2020)."""
    tokens = STUDY.train.steps * STUDY.train.batch_size * STUDY.model.context_length
    flops = sum(6 * weights(cell) * tokens for cell in CELLS.values())
    minutes = 1 + 1.6 * flops / NOMINAL_FLOPS / 60
    print(
        f"{len(CELLS)} cells of {tokens:,} training tokens each: about {minutes:.0f} minutes on 2 CPU cores"
        " if nothing is done yet.\nEach training says every 20 seconds how far it is; all else is in results/logs."
        " Stop and start again at any time.",
        file=sys.stderr,
    )


def weights(cell):
    """The weights of a cell that a token is multiplied with: all but the embedding's."""
    size = cell.size
    heads = 2 * size.d_model + 2 * size.num_key_value_heads * size.head_dim
    layer = size.d_model * (heads + 3 * size.intermediate_size)
    return size.num_hidden_layers * layer + size.d_model * cell.model.vocab_size


def web_report():
    """Remake results/report.html, when the whole study is there, by the user's own command with `--report`."""
    paper, page = Path("results/paper.pdf"), Path("results/report.html")
    if not paper.exists():
        return
    if not page.exists() or page.stat().st_mtime < paper.stat().st_mtime:
        with open("results/logs/report.log", "w") as log:
            command = [
                sys.executable,
                "-m",
                "snakemake",
                *sys.argv[1:],
                "--report",
                str(page),
            ]
            if subprocess.run(command, stdout=log, stderr=log).returncode:
                print(f"The web report could not be made; see {log.name}", file=sys.stderr)
    print(f"Done: {paper}, {page}, results/figures/, results/tables/", file=sys.stderr)
