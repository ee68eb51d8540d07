"""The facts of the page results/reproducibility.md, which answers what checklists of reproducibility ask.

The questions are in the sense of the Machine Learning Reproducibility Checklist (Pineau et al. 2021, JMLR 22:164), the
NeurIPS paper checklist, and ACM's Artifact Review and Badging, version 1.1. The sentences stand in
workflow/report/reproducibility.jinja, and the files beside it give them the form of Markdown and of HTML.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..analysis.comparison import published_vs_replicated
from ..analysis.experiments import search_table
from ..analysis.published_recipe import CONTEXT_LENGTH, LEARNING_RATE, RANK, RESET_PERIOD, SIZES, STEPS, VOCAB_SIZE
from ..analysis.results import Runs, devices, on_gpu
from ..analysis.spent import spent
from ..config import Cell, Space, Study, read_section
from ..config.benchmark_names import BLIMP
from ..config.settings import Experiments, experiments_of
from ..storage.contracts import Manifest, read_manifest
from ..storage.files import read_yaml
from .experiments import searched
from .numbers import Rows, cell_label, listed, plain, setting
from .sentences import diverged, limits, places, versions

PROJECT = Path(__file__).parents[3]
PINS, LICENCES = (PROJECT / "resources" / name for name in ("datasets.yaml", "licences.yaml"))
SHOWN = 12  # hexadecimal digits of a hash that a table shows
OUTCOMES = {  # of the table published_vs_replicated, by the beginning of its verdict
    "replicated": "within their tolerance",
    "differs": "outside it",
    "not comparable": "not comparable at this scale",
    "not measured": "not measured",
}


def facts(runs: Runs) -> dict[str, Any]:
    """What the page tells of the run that ``runs`` belongs to, by the template's names; a table begins with its header.

    Raises :class:`UserError` where a file of the run is missing or malformed.
    """
    results = runs.folder.parent
    study = read_section(Study, results / "settings" / "whole.yaml")
    experiments, tokens = experiments_of(study), read_manifest(results / "data" / "tokens")
    swept = experiments.beside(runs.cells)
    words = {"diverged": diverged, "limits": limits, "places": places, "searched": searched, "versions": versions}
    return {
        **words,
        "space": _space,
        "runs": runs,
        "study": study,
        "experiments": experiments,
        "tokens": tokens,
        "pin": read_yaml(PINS)["pypi_news"],
        "licences": _licences(runs, study),
        "splits": _splits(tokens),
        "search": search_table(results) if study.tuning else None,
        **_recipe(list(runs.cells.values())),
        "checkpoints": runs.table("evaluation.csv").groupby("cell").step.nunique().sum(),
        "swept": swept,
        "swept_diverged": sum(runs.manifest(cell).get("diverged_at") is not None for cell in swept.values()),
        "candidates": sum(len(settings.candidates) for settings, _ in experiments.searches.values()),
        **_compute(runs, experiments),
        "weights": _weights(runs),
        "missing": _missing(runs, study, swept),
        **_compared(runs),
        "doi": read_yaml(cited).get("doi") if (cited := PROJECT / "CITATION.cff").exists() else None,
        "jobs": len(list((results / "benchmarks/jobs").glob("*.tsv"))),
    }


def _licences(runs: Runs, study: Study) -> list[dict[str, Any]]:
    """What resources/licences.yaml knows of each input of the run."""
    known = read_yaml(LICENCES)
    used = [study.data.source, *(["blimp"] if runs.suite == BLIMP else []), "published"]
    return [known[name] for name in used if name in known]


def _splits(tokens: Manifest) -> Rows:
    """A row a split: how much text it holds, and its hash."""
    parts = {"train": tokens.train, "validation": tokens.validation, "held out": tokens.held_out}
    sizes = ["documents", "tokens", "bytes"]
    rows = [
        [name, *(plain(getattr(split, size)) for size in sizes), split.sha256[:SHOWN]]
        for name, split in parts.items()
        if split
    ]
    return [["split", *sizes, "SHA-256"], *rows]


def _space(space: Space) -> str:
    """The settings that a search tries, in words."""
    if space.sobol:
        ranges = [f"{key} from {one.low:g} to {one.high:g} ({one.scale})" for key, one in space.sobol.items()]
        return f"{listed(ranges)}, of which Sobol's sequence gives {space.size} points"
    if space.grid:
        return listed(f"{key} of {listed(map(setting, values))}" for key, values in space.grid.items())
    points = len(space.candidates())
    return f"{points:,} point{'s' * (points > 1)} of {listed(space.keys)}"


def _recipe(cells: list[Cell]) -> dict[str, Any]:
    """The published recipe beside that of ``cells``, and what of it is the paper's throughout."""
    adapted = [cell for cell in cells if cell.method.rank]
    ours: dict[str, tuple[float, list[float]]] = {
        "steps": (STEPS, [cell.train.steps for cell in cells]),
        "peak learning rate": (LEARNING_RATE, [cell.train.learning_rate for cell in cells]),
        "context length": (CONTEXT_LENGTH, [cell.model.context_length for cell in cells]),
        "vocabulary": (VOCAB_SIZE, [cell.model.vocab_size for cell in cells]),
        "rank of adapters": (RANK, [cell.method.rank for cell in adapted]),
        "steps of a cycle": (RESET_PERIOD, [cell.method.reset_period for cell in adapted if cell.method.reset_period]),
    }
    rows = [
        [name, setting(paper), ", ".join(map(setting, dict.fromkeys(found)))]
        for name, (paper, found) in ours.items()
        if found
    ]
    equal = [name for name, (paper, found) in ours.items() if set(found) == {paper}]
    return {"recipe": [["setting", "published", "this run"], *rows], "as_published": equal}


def _compute(runs: Runs, experiments: Experiments) -> dict[str, Any]:
    """The time of all that was trained and measured, a row a kind, its sums, and the memory of the largest training."""
    table = spent(runs, experiments)
    trained = table[table.what.str.startswith("training")].minutes.sum()
    hours = sum(devices(runs.manifest(cell)) * runs.training_seconds(cell) for cell in runs.cells.values()) / 3600
    shown = table.assign(minutes=table.minutes.map("{:,.1f}".format), files=[f"`{place}`" for place in table.files])
    return {
        "spent": [list(shown), *shown.astype(str).to_numpy().tolist()],
        "untimed": int(table.untimed.sum()),
        "minutes": {"training": f"{trained:,.1f}", "measured": f"{table.minutes.sum():,.1f}"},
        "device_hours": f"{hours:.2f}",
        "peak_MiB": f"{max(float(manifest['peak_memory_bytes']) for manifest in runs.manifests) / 2**20:,.0f}",
    }


def _weights(runs: Runs) -> Rows:
    """The hash of each cell's last weights."""
    hashes = {name: str(runs.manifest(cell).get("final_sha256", "")) for name, cell in runs.cells.items()}
    rows = [[cell_label(name), each[:SHOWN]] for name, each in hashes.items()]
    return [["cell", "SHA-256 of the last weights"], *rows]


def _missing(runs: Runs, study: Study, swept: Mapping[str, Cell]) -> dict[str, Any]:
    """What the paper or the configuration has and no cell does: names of shapes and methods; else, whether it lacks."""
    cells = [*runs.cells.values(), *swept.values()]
    return {
        "shapes": [name for name, size in SIZES.items() if size not in [cell.size for cell in cells]],
        "methods": [name for name in study.methods if name not in {cell.method_name for cell in cells}],
        "full_rank": all(cell.method.is_low_rank for cell in cells),
        "relora": not any(cell.method.restarts for cell in cells),
        "gpu": not any(map(on_gpu, runs.manifests)),
        "bfloat16": all(cell.runtime.precision == "float32" for cell in cells),
    }


def _compared(runs: Runs) -> dict[str, Any]:
    """How many of our numbers have a published one, and how many of them have each verdict, in words."""
    verdicts = published_vs_replicated(runs).verdict.str.partition(":")[0]
    counts = verdicts.value_counts(sort=False).items()
    return {
        "compared": len(verdicts),
        "verdicts": [f"{count:,} {OUTCOMES[str(verdict)]}" for verdict, count in counts],
    }
