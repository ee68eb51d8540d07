"""The whole study: its sections, and checks that their values go together."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from .data import Data
from .experiments import PREVIOUS, Sweep, Tuning
from .fields import Name, Section, Seeds, at_default, is_none
from .measuring import Dynamics, Evaluation, Report, Sharing
from .method import Method
from .training import Model, Recipe, Runtime, Size, Train

# Candidates see equally many tokens, as the rungs say, and their losses of a token compare: no key of these varies.
ONE_FOR_ALL_CANDIDATES = {"steps", "batch_size", "context_length", "vocab_size"} | (
    Size.model_fields.keys() - Recipe.model_fields.keys()
)


def without_nulls(sweeps: Any) -> Any:
    """Leave out the sweeps that an overlay set to null."""
    return {name: sweep for name, sweep in sweeps.items() if sweep is not None} if isinstance(sweeps, dict) else sweeps


SWEEPS = BeforeValidator(without_nulls, json_schema_input_type=dict[Name, Sweep | None] | None)
PAPERS_SIZES = ("tiny", "small")  # the sizes with published curves


def cell_name(size: str, method: str, seed: int) -> str:
    """Return the name of a cell and of its folder."""
    return f"{size}-{method}-s{seed}"


class Selection(Section):
    """The cells of the study: every size with every method and every seed."""

    sizes: Annotated[list[str], Field(min_length=1)]
    """Names of blocks under `sizes`."""
    methods: Annotated[list[str], Field(min_length=1)]
    """Names of blocks under `methods`."""
    seeds: Seeds
    """A list, or a number of seeds from 42 on: 5 means 42 to 46."""
    baseline: Annotated[str | None, Field(exclude_if=is_none)] = None
    """Full-rank method that the others are compared with; null: the first in methods."""

    @property
    def cell_names(self) -> list[str]:
        """Return the cells' names; sizes vary slowest, then methods, then seeds."""
        return [cell_name(size, method, seed) for size in self.sizes for method in self.methods for seed in self.seeds]


class Study(Section):
    """A whole study: config.yaml with its overlays."""

    schema_version: Literal[1]
    """Version of this schema and of the results' layout."""
    study: Selection
    """The cells: every size with every method and every seed."""
    data: Data
    """From a corpus to token ids."""
    model: Model
    """Settings of the model that all sizes share."""
    sizes: dict[Name, Size]
    """Architectures and shapes by name, in the terms of transformers' configurations."""
    methods: dict[Name, Method]
    """Methods by name: sets of switches; add a variant by adding a block."""
    train: Train
    """The recipe that all methods and sizes share where they set nothing apart."""
    evaluation: Evaluation
    """The data on which each checkpoint is evaluated."""
    dynamics: Dynamics
    """The settings of readings."""
    report: Report
    """The look of figures and the paper."""
    runtime: Runtime
    """The machines and the precision of the jobs."""
    sharing: Annotated[Sharing, at_default(Sharing())] = Sharing()
    """What an archive of the results says of the run (`make pack`)."""
    sweeps: Annotated[dict[Name, Sweep] | None, SWEEPS, Field(exclude_if=is_none)] = None
    """Experiments by name: more cells, with keys varied (docs/experiments.md); null: none.

    An overlay leaves out a sweep of the file below it by setting that to null.
    """
    tuning: Annotated[Tuning | None, Field(exclude_if=is_none)] = None
    """Search for the settings of each size and method (docs/experiments.md); null: none."""

    @property
    def cycle_steps(self) -> int:
        """Return the longest reset period of the study's methods, over which all methods are compared."""
        periods = [self.methods[name].reset_period for name in self.study.methods]
        return max((period for period in periods if period), default=self.train.checkpoint_every)

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        for chosen, known, kind in (
            (self.study.sizes, self.sizes, "sizes"),
            (self.study.methods, self.methods, "methods"),
        ):
            for name in chosen:
                if name not in known:
                    raise ValueError(f"study.{kind}: {name!r} is not one of {', '.join(known)}")
        for values in (self.study.sizes, self.study.methods, self.study.seeds):
            if len(set(values)) < len(values):
                raise ValueError(f"study: {values} names an entry twice; keep one")
        return self

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        yield from self._baseline()
        yield from _unpublished(self)
        yield from _without_texts(self)
        yield from self._numbers()
        yield from _of_sweeps(self)
        yield from _of_tuning(self)
        for method, sizes in _trained_at(self).items():
            yield from _of_method(self, method, sizes)

    def _baseline(self) -> Iterator[str]:
        name = self.study.baseline
        if name is not None and name not in self.study.methods:
            yield f"study.baseline: {name!r} is not one of study.methods: {', '.join(self.study.methods)}"
        elif name is not None and (method := self.methods[name]).is_low_rank:
            yield f"study.baseline: {name!r} has rank {method.target_rank}; name a method of full rank"

    def _numbers(self) -> Iterator[str]:
        limit = {"uint16": 2**16}.get(self.data.token_dtype, 2**32)
        if self.model.vocab_size > limit:
            yield f"model.vocab_size {self.model.vocab_size} is too big for data.token_dtype: at most {limit}"
        if (self.evaluation.perplexity.stride or 0) > self.model.context_length:
            yield "evaluation.perplexity.stride must be at most model.context_length: texts would have gaps"


def _unpublished(study: Study) -> Iterator[str]:
    """Yield a problem where published curves are asked for at a size that has none."""
    unpublished = [name for name in study.study.sizes if name not in PAPERS_SIZES]
    if study.report.published == "overlay" and unpublished:
        yield (
            f"report.published overlay: the published curves are of the sizes {' and '.join(PAPERS_SIZES)}, and"
            f" study.sizes has {', '.join(unpublished)}; set auto or off, or name the sizes so"
        )


def _without_texts(study: Study) -> Iterator[str]:
    """Yield a problem for each evaluation that needs the texts of a corpus of token ids."""
    if study.data.source != "hub_pretokenized":
        return
    if study.evaluation.perplexity.source == "held_out":
        yield "evaluation.perplexity.source must be path or hub when data.source is hub_pretokenized: it has no texts"
    if study.evaluation.minimal_pairs.source == "templated":
        yield (
            "evaluation.minimal_pairs.source must be path, url or hub when data.source is hub_pretokenized:"
            " it has no texts"
        )


def _trained_at(study: Study) -> dict[str, list[str]]:
    """The sizes at which each method trains, in the study or in a sweep."""
    sections: list[Selection | Sweep] = [study.study, *(study.sweeps or {}).values()]
    pairs = dict.fromkeys(
        (method, size)
        for section in sections
        for method in section.methods or study.study.methods
        for size in section.sizes or study.study.sizes
    )
    return {method: [size for other, size in pairs if other == method] for method, _ in pairs}


def _of_method(study: Study, name: str, sizes: list[str]) -> Iterator[str]:
    """Yield a problem for each size that the method ``name`` sets apart wrongly; it trains at ``sizes``."""
    method = study.methods[name]
    for size in method.sizes or {}:
        if size not in study.sizes:
            yield f"methods.{name}.sizes: {size!r} is not one of {', '.join(study.sizes)}"
    for size in sizes:
        try:
            method.switches_at(size)
        except ValueError as error:
            yield f"methods.{name}.{error}"


def _of_sweeps(study: Study) -> Iterator[str]:
    if "search" in (study.sweeps or {}):
        yield "sweeps.search: the report calls the search of `tuning` so; give the sweep another name"
    for name, sweep in (study.sweeps or {}).items():
        unknown = set(sweep.methods or []) - study.methods.keys()
        if unknown:
            yield f"sweeps.{name}.methods: {min(unknown)!r} is not one of {', '.join(study.methods)}"
        unknown = set(sweep.sizes or []) - study.sizes.keys()
        if unknown:
            yield f"sweeps.{name}.sizes: {min(unknown)!r} is not one of {', '.join(study.sizes)}"
        for key, values in (("methods", sweep.methods), ("sizes", sweep.sizes), ("seeds", sweep.seeds)):
            if values is not None and len(set(values)) < max(1, len(values)):
                yield f"sweeps.{name}.{key}: {values} must name an entry, and none twice"
        trained = sweep.methods or study.study.methods
        if sweep.against not in (None, PREVIOUS, *trained):
            yield f"sweeps.{name}.against: {sweep.against!r} is not {PREVIOUS} or one of {', '.join(trained)}"
        if sweep.against and len(trained) == 1:
            yield f"sweeps.{name}.against: {trained[0]} is the only method; name another in methods to compare it with"


def _of_tuning(study: Study) -> Iterator[str]:
    """Settings are chosen on documents and seeds that nothing is reported on."""
    tuning = study.tuning
    if tuning is None:
        return
    unknown = (tuning.spaces or {}).keys() - study.methods.keys()  # a study may leave out methods that have a space
    if unknown:
        yield f"tuning.spaces: {min(unknown)!r} is not one of {', '.join(study.methods)}"
    for seed in set(tuning.seeds) & set(study.study.seeds):
        yield f"tuning.seeds: {seed} is one of study.seeds, whose results are reported: choose settings on others"
    if not study.data.validation_fraction:
        yield "tuning needs a data.validation_fraction above 0: documents of its own to choose settings on"
    spaces = {"space": tuning.space} | {f"spaces.{name}": space for name, space in (tuning.spaces or {}).items()}
    for place, space in spaces.items():
        for key in ONE_FOR_ALL_CANDIDATES.intersection(space.keys):
            yield (
                f"tuning.{place}: {key} is no key to search, because the candidates of a size share its shape, their"
                " number of tokens and the vocabulary; leave it out"
            )
    if tuning.rungs[-1] > study.train.steps:
        yield f"tuning.rungs {tuning.rungs} must end at train.steps {study.train.steps} or before"
