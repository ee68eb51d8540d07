"""The whole study: its sections, and checks that their values go together."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from .data import Data
from .experiments import PREVIOUS, Sweep, Tuning
from .fields import Name, Section, Seeds, at_default, is_none
from .measuring import Dynamics, Evaluation, Report
from .sharing import Sharing
from .training import Method, Model, Recipe, Runtime, Size, Train

# Candidates see equally many tokens, as the rungs say, and their losses of a token compare: no key of these varies.
ONE_FOR_ALL_CANDIDATES = {"steps", "batch_size", "context_length", "vocab_size"} | (
    Size.model_fields.keys() - Recipe.model_fields.keys()
)
PAPERS_SIZES = ("tiny", "small")  # the sizes with published curves


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


def cell_name(size: str, method: str, seed: int) -> str:
    """Return the name of a cell and of its folder."""
    return f"{size}-{method}-s{seed}"


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
    """Shapes by name, in the terms of `transformers.LlamaConfig`."""
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
    sweeps: Annotated[dict[Name, Sweep] | None, Field(exclude_if=is_none)] = None
    """Experiments by name: more cells, with keys varied (docs/experiments.md); null: none."""
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
        yield from _misnamed(self)
        yield from _without_texts(self)
        yield from _too_little_data(self)
        yield from self._numbers()
        for name in self.study.methods:
            yield from _of_method(self, name)
        yield from _of_sweeps(self)
        yield from _of_tuning(self)

    def _baseline(self) -> Iterator[str]:
        name = self.study.baseline
        if name is not None and name not in self.study.methods:
            yield f"study.baseline: {name!r} is not one of study.methods: {', '.join(self.study.methods)}"
        elif name is not None and not (method := self.methods[name]).is_full_rank:
            yield f"study.baseline: {name!r} has rank {method.target_rank}; name a method of full rank"

    def _numbers(self) -> Iterator[str]:
        limit = {"uint16": 2**16}.get(self.data.token_dtype, 2**32)
        if self.model.vocab_size > limit:
            yield f"model.vocab_size {self.model.vocab_size} is too big for data.token_dtype: at most {limit}"
        if self.train.batch_size % self.runtime.processes:
            yield f"train.batch_size must be a multiple of runtime.processes {self.runtime.processes}"
        if (self.evaluation.perplexity.stride or 0) > self.model.context_length:
            yield "evaluation.perplexity.stride must be at most model.context_length: texts would have gaps"


def _misnamed(study: Study) -> Iterator[str]:
    """Yield a problem for each method or size whose settings contradict its name in figures and the paper."""
    claims: dict[str, dict[str, Any]] = {
        "relora_released": {"adapter_initialization": "zero", "merge": "unscaled"},
        "relora_zero2": {"adapter_initialization": "zero", "merge": "unscaled", "restart": "undone"},
    }
    for name in study.study.methods:
        rank = study.methods[name].rank
        if name == "full" and rank:
            yield f"methods.full.rank {rank}: figures call `full` full rank; give a method with adapters another name"
        if name == "full" and not rank and not study.methods[name].is_full_rank:
            yield "methods.full: figures call `full` full rank; give a method with factor_rank or update another name"
        if name in ("relora", *claims) and not rank:
            yield f"methods.{name}.rank 0: figures call `{name}` ReLoRA; give a method without adapters another name"
        for key, value in claims.get(name, {}).items():
            if (chosen := getattr(study.methods[name], key)) != value:
                yield (
                    f"methods.{name}.{key} {chosen}: figures say of `{name}` that it runs the released code's rules"
                    f" ({key}: {value}); give another method another name"
                )
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


def _too_little_data(study: Study) -> Iterator[str]:
    """Yield a problem if the configuration alone shows that the corpus has too few rows."""
    shards, needed, fixed = study.data.hub_pretokenized, study.train.steps * study.train.batch_size, study.dynamics
    if study.data.source == "hub_pretokenized":
        if (rows := shards.shards * shards.rows_per_shard) < needed:
            yield (
                f"data.hub_pretokenized.shards {shards.shards} hold {rows} rows, and train.steps times"
                f" train.batch_size are {needed}: raise shards"
            )
        if fixed.batch_sequences > shards.rows_per_shard:
            yield f"dynamics.batch_sequences is above {shards.rows_per_shard}, the rows of the shard that is held out"
        return
    scores_held_out = study.evaluation.perplexity.source == "held_out"
    if scores_held_out and study.data.held_out_tokens_per_domain < study.model.context_length + 1:
        yield "data.held_out_tokens_per_domain must hold one sequence: above model.context_length"
    fixed_tokens = fixed.batch_sequences * (study.model.context_length + 1)
    if study.data.held_out_tokens < fixed_tokens:
        yield f"data.held_out_tokens must hold dynamics.batch_sequences: at least {fixed_tokens}"


def _of_method(study: Study, name: str) -> Iterator[str]:
    """Yield a problem for each setting that the method ``name`` does not go together with."""
    method = study.methods[name]
    for size in method.sizes or {}:
        if size not in study.sizes:
            yield f"methods.{name}.sizes: {size!r} is not one of {', '.join(study.sizes)}"
    for size in study.study.sizes:
        try:
            method.switches_at(size)
        except ValueError as error:
            yield f"methods.{name}.{error}"
    for size in study.study.sizes:
        yield from conflicts(f"methods.{name}", method, size, study.sizes[size], study.train)


def conflicts(label: str, method: Method, size_name: str, size: Size, train: Train) -> Iterator[str]:
    """Why ``method``, which messages call ``label``, cannot train at a size with a recipe."""
    if method.full_rank_steps >= train.steps:
        yield (
            f"{label}.full_rank_steps {method.full_rank_steps} must be below train.steps {train.steps}:"
            " the adapters would never train"
        )
    period, offset = method.reset_period, train.checkpoint_offset
    if period is not None and not method.reset_offset < offset < period:
        yield (
            f"train.checkpoint_offset {offset} must be above {label}.reset_offset and below its"
            f" reset_period {period}: it is read after a reset"
        )
    if method.target_rank > (most := size.smallest_dimension):
        key = "rank" if method.rank else "factor_rank" if method.factor_rank else "projection_rank"
        yield f"{label}.{key} {method.target_rank} is above {most}, the smallest dimension of {size_name}"


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
        trained = sweep.methods or study.study.methods
        if sweep.against not in (None, PREVIOUS, *trained):
            yield f"sweeps.{name}.against: {sweep.against!r} is not {PREVIOUS} or one of {', '.join(trained)}"


def _of_tuning(study: Study) -> Iterator[str]:
    """Settings are chosen on documents and seeds that nothing is reported on."""
    tuning = study.tuning
    if tuning is None:
        return
    unknown = (tuning.spaces or {}).keys() - set(study.study.methods)
    if unknown:
        yield f"tuning.spaces: {min(unknown)!r} is not one of study.methods: {', '.join(study.study.methods)}"
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
