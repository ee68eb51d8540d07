"""The configuration's one schema: what each key may hold, and which combinations make a study."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .errors import UserError
from .files import read_yaml

HELD_OUT_SEQUENCES = 64  # that texts give to held_out.bin at most: the fixed batch of loss and gradients is its start

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]


def _number(value: Any) -> Any:
    """YAML 1.1 reads `3e-4` as text; take it for the number that its writer meant."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Number = Annotated[float, BeforeValidator(_number)]
PositiveNumber = Annotated[Number, Field(gt=0, allow_inf_nan=False)]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None  # a commit of the Hub
Share = Annotated[Number, Field(ge=0, le=1)]


class Section(BaseModel):
    """A mapping of the configuration: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


SectionT = TypeVar("SectionT", bound=Section)


class Selection(Section):
    """The cells of the study: every size x method x seed."""

    sizes: Annotated[list[str], Field(min_length=1)]
    methods: Annotated[list[str], Field(min_length=1)]
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)]

    @property
    def cell_names(self) -> list[str]:
        """The cells' names, sizes outermost."""
        return [cell_name(size, method, seed) for size in self.sizes for method in self.methods for seed in self.seeds]


def cell_name(size: str, method: str, seed: int) -> str:
    """What a cell and its folder are called."""
    return f"{size}-{method}-s{seed}"


class Files(Section):
    """Where `source: files` reads its documents."""

    path: str | None
    text_column: str


class HubPretokenized(Section):
    """Which parquet shards of token ids `source: hub_pretokenized` reads, and from where."""

    path: str | None
    repository: str
    revision: Revision
    column: str
    shards_in_all: Annotated[int, Field(gt=0, le=99_999)]
    rows_per_shard: PositiveInt
    first_shard: NonNegativeInt
    shards: PositiveInt
    held_out_shard: NonNegativeInt

    @property
    def training_shards(self) -> range:
        """The numbers of the shards that train, in the order in which they are read."""
        return range(self.first_shard, self.first_shard + self.shards)

    @model_validator(mode="after")
    def _there(self) -> Self:
        last = max(self.training_shards[-1], self.held_out_shard)
        if last >= self.shards_in_all:
            raise ValueError(f"shard {last} is not one of the shards_in_all {self.shards_in_all}, numbered from 0")
        if self.held_out_shard in self.training_shards:
            raise ValueError(f"held_out_shard {self.held_out_shard} is among the shards that train")
        return self


class Tokenizer(Section):
    """Where the tokenizer comes from."""

    source: Literal["train", "path", "hub"]
    name: str | None
    revision: Revision = None

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.source != "train" and not self.name:
            raise ValueError(f"name must be a folder or repository when source is {self.source}")
        return self


class Data(Section):
    """From a corpus to token ids."""

    source: Literal["pypi_news", "files", "hub_pretokenized"]
    files: Files
    hub_pretokenized: HubPretokenized
    held_out_fraction: Annotated[Number, Field(gt=0, lt=1)]
    held_out_tokens_per_domain: PositiveInt
    token_dtype: Literal["auto", "uint16", "uint32"]
    tokenizer: Tokenizer

    @model_validator(mode="after")
    def _placed(self) -> Self:
        if self.source == "files" and not self.files.path:
            raise ValueError("files.path must name a folder when source is files")
        if self.source == "hub_pretokenized" and self.tokenizer.source == "train":
            raise ValueError("tokenizer.source must be path or hub when source is hub_pretokenized: it has no texts")
        return self

    def dtype(self, vocab_size: int) -> Literal["uint16", "uint32"]:
        """The integer type of the ids on disk: the configured one, or the smallest that holds ``vocab_size`` ids."""
        if self.token_dtype != "auto":
            return self.token_dtype
        return "uint16" if vocab_size <= 2**16 else "uint32"


class Model(Section):
    """What every size of the study shares."""

    vocab_size: Annotated[int, Field(ge=257)]
    context_length: Annotated[int, Field(ge=2)]
    rms_norm_eps: PositiveNumber
    rope_theta: PositiveNumber
    initialization: Literal["pytorch", "normal"]


class Size(Section):
    """The shape of a model, in the terms of `transformers.LlamaConfig`."""

    d_model: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.num_attention_heads

    @property
    def smallest_dimension(self) -> int:
        """The smallest dimension of any adapted matrix: no rank can exceed it."""
        return min(self.num_key_value_heads * self.head_dim, self.intermediate_size)

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        heads, groups = self.num_attention_heads, self.num_key_value_heads
        if self.d_model % heads or self.head_dim % 2:
            raise ValueError(f"d_model {self.d_model} must be num_attention_heads {heads} times an even head size")
        if heads % groups:
            raise ValueError(f"num_attention_heads {heads} must be a multiple of num_key_value_heads {groups}")
        return self


Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Method(Section):
    """How a cell trains: named switches, so that a variant is a block of YAML and no code."""

    rank: NonNegativeInt
    alpha: PositiveNumber = 1.0
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    targets: list[Target] = []
    adapter_initialization: Literal["kaiming", "zero"] = "kaiming"
    trainable_scale: bool = False
    adapters_only: bool = False
    full_rank_steps: NonNegativeInt = 0
    full_rank_from: PositiveInt | None = None
    merge: Literal["scaled", "unscaled", "none"] = "scaled"
    restart: Literal["redraw", "orthogonal", "none", "undone"] = "redraw"
    scale_reset: Literal["none", "zero"] = "none"
    reset_period: PositiveInt | None = None
    reset_offset: NonNegativeInt = 0
    moment_reset: Literal["random", "magnitude", "full", "none"] = "none"
    moment_reset_fraction: Share = 0.0
    moment_mask: Literal["independent", "shared"] = "independent"
    moment_scope: Literal["adapters", "all"] = "adapters"
    schedule: Literal["linear", "jagged_cosine"]
    warmup_steps: NonNegativeInt
    rewarmup_steps: NonNegativeInt = 0
    minimum_learning_rate_ratio: Share = 0.0
    horizon_steps: PositiveInt

    @property
    def scale(self) -> float:
        """The factor of B A in the forward pass, alpha / rank (Hu et al. 2021, section 4.1)."""
        return self.alpha / self.rank

    @model_validator(mode="after")
    def _possible(self) -> Self:
        period = self.reset_period
        if self.rank and not self.targets:
            raise ValueError("targets must name at least one projection when rank is above 0")
        if not self.rank and (self.targets or period or self.adapters_only or self.full_rank_steps):
            raise ValueError("rank must be above 0 when a switch of the adapters is set")
        if period is not None and period <= max(self.rewarmup_steps, self.reset_offset):
            raise ValueError(f"reset_period {period} must be longer than rewarmup_steps and reset_offset")
        if self.scale_reset == "zero" and not self.trainable_scale:
            raise ValueError("scale_reset zero needs trainable_scale: a fixed scale stays")
        if self.full_rank_from is not None and not (self.rank and self.full_rank_from > self.full_rank_steps):
            raise ValueError(f"full_rank_from {self.full_rank_from} must be above full_rank_steps, and rank above 0")
        if self.schedule == "jagged_cosine" and period is None:
            raise ValueError("schedule jagged_cosine needs a reset_period")
        if self.warmup_steps >= self.horizon_steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be below horizon_steps {self.horizon_steps}")
        return self


class Train(Section):
    """The recipe that every method shares."""

    steps: Annotated[int, Field(gt=0, lt=10**6)]  # checkpoints are named by six digits
    batch_size: PositiveInt
    micro_batch_size: PositiveInt
    learning_rate: PositiveNumber
    betas: Annotated[list[Annotated[Number, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
    eps: PositiveNumber
    weight_decay: Annotated[Number, Field(ge=0)]
    checkpoint_every: PositiveInt
    checkpoint_offset: NonNegativeInt
    state_every: PositiveInt
    divergence: Literal["stop", "record"] = "record"
    time_limit: PositiveNumber | None

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.batch_size % self.micro_batch_size:
            raise ValueError(f"batch_size must be a multiple of micro_batch_size {self.micro_batch_size}")
        if self.checkpoint_offset >= self.checkpoint_every:
            raise ValueError(f"checkpoint_offset {self.checkpoint_offset} must be below checkpoint_every")
        return self


class Perplexity(Section):
    """Which texts are scored, and how."""

    source: Literal["held_out", "path", "hub"]
    path: str | None
    revision: Revision = None
    text_column: str
    domain_column: str | None
    max_tokens: Annotated[int, Field(ge=2)]
    stride: PositiveInt | None

    @model_validator(mode="after")
    def _placed(self) -> Self:
        if self.source == "path" and not self.path:
            raise ValueError("path must name a folder when source is path")
        return self


class MinimalPairs(Section):
    """Which pairs of sentences are judged, and how."""

    source: Literal["templated", "path", "url", "hub"]
    path: str | None
    revision: Revision = None
    start_token: bool
    leading_space: bool

    @model_validator(mode="after")
    def _placed(self) -> Self:
        if self.source == "path" and not self.path:
            raise ValueError("path must name a .zip or a folder when source is path")
        return self


class Evaluation(Section):
    """What every checkpoint is measured on."""

    perplexity: Perplexity
    minimal_pairs: MinimalPairs
    batch_tokens: PositiveInt


class Dynamics(Section):
    """How spectra are taken."""

    batch_sequences: PositiveInt
    subspace_dimensions: PositiveInt


class Report(Section):
    """How figures and the paper look."""

    title: str
    published: Literal["auto", "overlay", "off"]


class Runtime(Section):
    """Where and in which precision the jobs run."""

    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["float32", "bfloat16"]
    processes: PositiveInt
    nodes: PositiveInt
    compile: bool
    release_memory: bool

    @property
    def processes_per_node(self) -> int:
        """How many of a training's processes run on each node."""
        return self.processes // self.nodes

    @model_validator(mode="after")
    def _even(self) -> Self:
        if self.processes % self.nodes:
            raise ValueError(f"processes {self.processes} must be a multiple of nodes {self.nodes}")
        return self


class Study(Section):
    """A whole study: config.yaml with its overlays."""

    schema_version: Literal[1]
    study: Selection
    data: Data
    model: Model
    sizes: dict[Name, Size]
    methods: dict[Name, Method]
    train: Train
    evaluation: Evaluation
    dynamics: Dynamics
    report: Report
    runtime: Runtime

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
                raise ValueError(f"study: {values} names one of its entries twice")
        return self

    @model_validator(mode="after")
    def _has_texts(self) -> Self:
        """Ids alone leave no texts to score or to make pairs from, and are read once."""
        if self.data.source != "hub_pretokenized":
            return self
        if self.evaluation.perplexity.source == "held_out":
            raise ValueError(
                "evaluation.perplexity.source must be path or hub when data.source is hub_pretokenized: it has no texts"
            )
        if self.evaluation.minimal_pairs.source == "templated":
            raise ValueError(
                "evaluation.minimal_pairs.source must be path, url or hub when data.source is hub_pretokenized:"
                " it has no texts"
            )
        shards, needed = self.data.hub_pretokenized, self.train.steps * self.train.batch_size
        if (rows := shards.shards * shards.rows_per_shard) < needed:
            raise ValueError(
                f"data.hub_pretokenized.shards {shards.shards} hold {rows} rows, and train.steps times"
                f" train.batch_size are {needed}: raise shards"
            )
        return self

    @model_validator(mode="after")
    def _fits(self) -> Self:
        limit = {"uint16": 2**16}.get(self.data.token_dtype, 2**32)
        if self.model.vocab_size > limit:
            raise ValueError(
                f"model.vocab_size {self.model.vocab_size} is too big for data.token_dtype: at most {limit}"
            )
        scores_held_out = self.evaluation.perplexity.source == "held_out"
        if scores_held_out and self.data.held_out_tokens_per_domain < self.model.context_length + 1:
            raise ValueError("data.held_out_tokens_per_domain must hold one sequence: above model.context_length")
        if self.data.source != "hub_pretokenized" and self.dynamics.batch_sequences > HELD_OUT_SEQUENCES:
            raise ValueError(f"dynamics.batch_sequences is above {HELD_OUT_SEQUENCES}, which are held out of texts")
        if self.train.batch_size % self.runtime.processes:
            raise ValueError(f"train.batch_size must be a multiple of runtime.processes {self.runtime.processes}")
        if (self.evaluation.perplexity.stride or 0) > self.model.context_length:
            raise ValueError("evaluation.perplexity.stride must be at most model.context_length: texts would have gaps")
        for method in self.study.methods:
            period, offset = self.methods[method].reset_period, self.train.checkpoint_offset
            if period is not None and not self.methods[method].reset_offset < offset < period:
                raise ValueError(
                    f"train.checkpoint_offset {offset} must be above methods.{method}.reset_offset and below its"
                    f" reset_period {period}: it is read after a reset"
                )
            for size in self.study.sizes:
                rank, most = self.methods[method].rank, self.sizes[size].smallest_dimension
                if rank > most:
                    raise ValueError(f"methods.{method}.rank {rank} is above {most}, the smallest dimension of {size}")
        return self

    @property
    def cycle_steps(self) -> int:
        """The longest reset period of the study's methods: the window over which all of them are compared."""
        periods = [self.methods[name].reset_period for name in self.study.methods]
        return max((period for period in periods if period), default=self.train.checkpoint_every)


class Cell(Section):
    """All that decides one run: what `results/cells/<cell>/config.yaml` holds."""

    name: str
    size_name: str
    method_name: str
    seed: int
    model: Model
    size: Size
    method: Method
    train: Train
    runtime: Runtime


def cells(study: Study) -> dict[str, Cell]:
    """The study's cells by name, sizes outermost."""
    chosen = study.study
    return {
        (name := cell_name(size, method, seed)): Cell(
            name=name,
            size_name=size,
            method_name=method,
            seed=seed,
            model=study.model,
            size=study.sizes[size],
            method=study.methods[method],
            train=study.train,
            runtime=study.runtime,
        )
        for size in chosen.sizes
        for method in chosen.methods
        for seed in chosen.seeds
    }


def check(raw: dict[str, Any], files: Sequence[str | Path]) -> Study:
    """Validate a merged configuration.

    ``files`` are the files it was merged from, weakest first; they serve to name the place of a mistake.
    Raises :class:`UserError`, one line, with the key, the value, what is allowed, and the file.
    """
    known = [yaml.safe_load(Path(file).read_text(encoding="utf-8")) for file in files]
    typed = _typed(raw, [], known)
    try:
        return Study.model_validate(typed)
    except ValidationError as error:
        by_file = dict(zip(map(str, files), known, strict=True))
        problems = [_describe(dict(problem), typed, by_file) for problem in error.errors()]
        raise UserError("; ".join(problems)) from error


def _typed(value: Any, path: list[str], known: list[Any]) -> Any:
    """``value`` with the types of YAML: Snakemake hands what is nested in `--config` over as text throughout."""
    if isinstance(value, dict):
        return {key: _typed(inner, [*path, str(key)], known) for key, inner in value.items()}
    if isinstance(value, list):
        return [_typed(inner, [*path, str(index)], known) for index, inner in enumerate(value)]
    if not isinstance(value, str) or any(_at(content, path) == value for content in known):
        return value
    try:
        typed = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    return typed if isinstance(typed, int | float | None) else value


def _describe(problem: dict[str, Any], raw: dict[str, Any], files: dict[str, Any]) -> str:
    path = [str(part) for part in problem["loc"]]
    key, message = ".".join(path), problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "unknown key; see config.yaml for the keys there are"
    elif problem["type"] == "missing":
        return f"{key}: required key is missing ({_origin(raw, path[:-1], files)})"
    value = "" if isinstance(problem["input"], dict | BaseModel) else f" = {problem['input']!r}"
    named = path or message.split()[0].rstrip(":").split(".")  # what concerns several sections begins with a key
    place = _origin(raw, path if _at(raw, named) is MISSING else named, files)
    return f"{key}{value}: {message} ({place})" if key else f"{message} ({place})"


def _origin(raw: dict[str, Any], path: list[str], files: dict[str, Any]) -> str:
    """The strongest file that sets what ``path`` holds, or the command line where none does."""
    value = _at(raw, path)
    for file, content in reversed(files.items()):
        found = _at(content, path)
        if found is not MISSING and (found == value or isinstance(value, dict)):
            return file
    return "--config"


MISSING = object()


def _at(content: Any, path: Sequence[str]) -> Any:
    """What ``content`` holds at ``path``, or MISSING."""
    for part in path:
        if isinstance(content, list) and part.isdigit() and int(part) < len(content):
            content = content[int(part)]
        elif isinstance(content, dict) and part in content:
            content = content[part]
        else:
            return MISSING
    return content


def read_section(kind: type[SectionT], path: Path) -> SectionT:
    """Read a resolved section that the workflow wrote, such as a cell's config.yaml, as ``kind``."""
    try:
        return kind.model_validate(read_yaml(path))
    except ValidationError as error:
        raise UserError(f"{path} does not hold a valid {kind.__name__}: {error.errors()[0]['msg']}") from error
