"""The settings files that commands read: `results/settings/NAME.yaml` for a stage, `config.yaml` for a cell.

A file holds only the settings that its readers use, so that another setting's change reruns nothing.
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple, Self

import yaml

from . import Cell, Data, Dynamics, Evaluation, Point, Section, Study
from .cells import base_method
from .fields import PositiveInt
from .study import cell_name
from .variants import candidates, every_cell, sweep_variants

DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml's dumper plans a study of 1,000 cells in seconds


class TokenSettings(Data):
    """Settings for making token ids: the data section, the model's vocabulary and its context length."""

    vocab_size: PositiveInt
    context_length: PositiveInt


class CorpusNeeds(Section):
    """The rows of ``context_length`` that the longest training of a study and the fixed batch take from its corpus."""

    context_length: PositiveInt
    train_sequences: PositiveInt
    held_out_sequences: PositiveInt


class MeasurementSettings(Evaluation):
    """Settings for evaluating a cell: the evaluation section, and how much held-out text is read."""

    held_out_tokens: PositiveInt
    held_out_tokens_per_domain: PositiveInt


class Diet(Section):
    """What a cell reads of the corpus: so many sequences, in the order of ``seed``; null: in the corpus's own."""

    seed: int | None
    sequences: PositiveInt

    @classmethod
    def of(cls, cell: Cell) -> Self:
        """The diet of ``cell``."""
        return cls(seed=cell.seed if cell.data_order == "seed" else None, sequences=cell.train.sequences)


class YardstickSettings(Section):
    """Settings for counting n-grams: the diets of all cells, and the held-out text that scores them."""

    context_length: PositiveInt
    held_out_tokens: PositiveInt
    diets: list[Diet]


class DynamicsSettings(Dynamics):
    """Settings for taking spectra: the dynamics section, and the cycle over which all methods are compared."""

    cycle_steps: PositiveInt


class Labels(Section):
    """What the report calls each method that has a label, by the method's name."""

    labels: dict[str, str]

    @classmethod
    def of(cls, study: Study) -> Self:
        """The labels of the methods of ``study``."""
        return cls(labels={name: method.label for name, method in study.methods.items() if method.label})


class SearchSettings(Section):
    """One search: rungs, how many candidates reach each, seeds, and what every candidate changes, by its name."""

    size: str
    method: str
    rungs: list[PositiveInt]
    survivors: list[PositiveInt]
    seeds: list[int]
    candidates: dict[str, Point]

    def seeds_at(self, rung: int) -> list[int]:
        """The seeds with which candidates train to ``rung``: the first alone, but every one to the last rung."""
        return self.seeds if rung == len(self.rungs) - 1 else self.seeds[:1]

    def cells_at(self, rung: int) -> list[str]:
        """The cells that have a job at ``rung``, those of dropped candidates, too."""
        return [cell_name(self.size, name, seed) for name in self.candidates for seed in self.seeds_at(rung)]

    def steps_to(self, rung: int) -> int:
        """Count the optimizer steps of a candidate to ``rung`` from the one before; further seeds begin at step 0."""
        before = self.rungs[rung - 1] if rung else 0
        return self.rungs[rung] * len(self.seeds_at(rung)) - before


class Partners(Section):
    """The full-rank cell that each cell of another method is read against, by the cell's name."""

    pairs: dict[str, str]

    @classmethod
    def of(cls, study: Study, cells: Mapping[str, Cell]) -> Self:
        """The partners among ``cells``: of equal size, seed, steps and batches, and of the nearest rates.

        A cell without such a partner has none, and full rank itself needs none.
        """
        whole = (name for name in [*study.study.methods, *study.methods] if study.methods[name].is_full_rank)
        baseline = study.study.baseline or next(whole, None)
        by_diet: dict[str, list[Cell]] = {}
        for cell in cells.values():
            if base_method(cell) == baseline:
                by_diet.setdefault(_alike(cell), []).append(cell)
        others = (cell for cell in cells.values() if base_method(cell) != baseline and _alike(cell) in by_diet)
        return cls(pairs={cell.name: min(by_diet[_alike(cell)], key=partial(_apart, cell)).name for cell in others})


def _alike(cell: Cell) -> str:
    """What a cell and its partner share, as one text."""
    train = cell.train
    return repr((cell.size, cell.model, cell.seed, cell.data_order, train.steps, train.batch_size))


def _apart(cell: Cell, other: Cell) -> tuple[float, bool, str]:
    """How far the rates of ``other`` are from those of ``cell``; of equal ones the first by name counts as nearer."""
    ratio = cell.train.learning_rate / other.train.learning_rate
    return abs(math.log(ratio)), cell.method.rate_ratios != other.method.rate_ratios, other.name


class SweepSettings(Section):
    """One sweep: the keys that vary, what each of its cells changes, by the cell's name, and what they are against."""

    keys: list[str]
    against: str | None
    cells: dict[str, Point]


class Sweeps(Section):
    """All sweeps of a study, by name."""

    sweeps: dict[str, SweepSettings]

    def over(self, key: str) -> list[str]:
        """The names of the sweeps that vary ``key``, and nothing else."""
        return [name for name, sweep in self.sweeps.items() if sweep.keys == [key]]


Search = tuple[SearchSettings, dict[str, Cell]]  # with its cells by name, one for each candidate and seed


class Experiments(NamedTuple):
    """All that a study trains beside its own cells: the sweeps with their cells, and the searches."""

    sweeps: Sweeps
    cells: dict[str, Cell]
    searches: dict[str, Search]

    def beside(self, cells: Mapping[str, Cell]) -> dict[str, Cell]:
        """The cells of sweeps that are not among ``cells``, the study's own, by name."""
        return {name: cell for name, cell in self.cells.items() if name not in cells}


def experiments_of(study: Study) -> Experiments:
    """Resolve the sweeps and searches of ``study``; sweeps share a cell of one name, and so of equal settings."""
    settings: dict[str, SweepSettings] = {}
    cells: dict[str, Cell] = {}
    for name, sweep in (study.sweeps or {}).items():
        variants = sweep_variants(study, sweep)
        points = {variant.cell.name: variant.point for variant in variants}
        keys = sweep.space.keys if sweep.space else []
        settings[name] = SweepSettings(keys=keys, against=sweep.against, cells=points)
        cells |= {variant.cell.name: variant.cell for variant in variants}
    return Experiments(Sweeps(sweeps=settings), cells, searches(study))


def settings_files(study: Study, cells: Mapping[str, Cell], experiments: Experiments) -> dict[str, Section]:
    """What the settings files hold, by their path in `results/`; ``cells`` are the study's own."""
    files: dict[str, Section] = {f"settings/{name}.yaml": section for name, section in stage_settings(study).items()}
    files["settings/sweeps.yaml"] = experiments.sweeps
    files["settings/partners.yaml"] = Partners.of(study, {**cells, **experiments.cells})
    files["settings/yardsticks.yaml"] = yardstick_settings(study, [*cells.values(), *experiments.cells.values()])
    for name, cell in cells.items():
        files[f"tuning/base/{name}.yaml" if study.tuning else f"cells/{name}/config.yaml"] = cell
    files |= {f"cells/{name}/config.yaml": cell for name, cell in experiments.cells.items()}
    for search, (settings, tried) in experiments.searches.items():
        files[f"tuning/{search}/settings.yaml"] = settings
        files |= {f"tuning/{search}/{name}/config.yaml": cell for name, cell in tried.items()}
    return files


def yardstick_settings(study: Study, cells: Iterable[Cell]) -> YardstickSettings:
    """What the yardsticks of ``cells`` are counted on, each diet once."""
    diets = {repr(diet): diet for diet in map(Diet.of, cells)}
    length, most = study.model.context_length, study.data.held_out_tokens
    return YardstickSettings(context_length=length, held_out_tokens=most, diets=list(diets.values()))


def searches(study: Study) -> dict[str, Search]:
    """Each search of the study by its name, `SIZE-METHOD`: its settings, and its cells by name."""
    if study.tuning is None:
        return {}
    survivors = [study.tuning.survivors(rung) for rung in range(len(study.tuning.rungs))]
    found = {}
    for size, method in itertools.product(study.study.sizes, study.study.methods):
        tried = candidates(study, size, method)
        settings = SearchSettings(
            size=size,
            method=method,
            rungs=study.tuning.rungs,
            survivors=survivors,
            seeds=study.tuning.seeds,
            candidates={variant.cell.method_name: variant.point for variant in tried.values()},
        )
        found[f"{size}-{method}"] = settings, {name: variant.cell for name, variant in tried.items()}
    return found


def stage_settings(study: Study) -> dict[str, Section]:
    """Return the content of each `results/settings/NAME.yaml` by NAME."""
    data, model = study.data, study.model
    sections = {name: getattr(study, name) for name in ("study", "data", "evaluation", "report", "runtime")}
    return sections | {
        "tokens": TokenSettings(**data.model_dump(), vocab_size=model.vocab_size, context_length=model.context_length),
        "enough": CorpusNeeds(
            context_length=model.context_length,
            train_sequences=max(cell.train.sequences for cell in every_cell(study)),
            held_out_sequences=study.dynamics.batch_sequences,
        ),
        "measurement": MeasurementSettings(
            **study.evaluation.model_dump(),
            held_out_tokens=data.held_out_tokens,
            held_out_tokens_per_domain=data.held_out_tokens_per_domain,
        ),
        "dynamics": DynamicsSettings(**study.dynamics.model_dump(), cycle_steps=study.cycle_steps),
        "labels": Labels.of(study),
        "whole": study,
    }


def as_yaml(settings: Section) -> str:
    """Return ``settings`` as the text of a settings file."""
    return yaml.dump(settings.model_dump(), Dumper=DUMPER, sort_keys=False)
