"""A method: named switches, with rates by group and what it sets apart at one size, and the switches left idle."""

import itertools
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, WithJsonSchema, model_validator

from .architectures import ALL, Target
from .fields import (
    BelowOne,
    Name,
    NonNegativeInt,
    PositiveInt,
    PositiveNumber,
    PositiveSteps,
    Section,
    Share,
    Steps,
    at_default,
    is_none,
)
from .training import Recipe, Size
from .updates import UPDATES, keys_of_updates, known_update


class RateRatios(Section):
    """Learning rates of groups of parameters, as multiples of the schedule's rate."""

    embedding: Annotated[PositiveNumber | None, Field(exclude_if=is_none)] = None
    """Ratio of the token embedding."""
    head: Annotated[PositiveNumber | None, Field(exclude_if=is_none)] = None
    """Ratio of the output head."""
    norms: Annotated[PositiveNumber | None, Field(exclude_if=is_none)] = None
    """Ratio of the norms' weights, and of all biases."""
    targets: Annotated[PositiveNumber | None, Field(exclude_if=is_none)] = None
    """Ratio of the targets' whole weights, while they train.

    They do in full rank, in a warm start, and by an `update`.
    """
    adapters: Annotated[PositiveNumber | None, Field(exclude_if=is_none)] = None
    """Ratio of A and B, in adapters or factorized layers, and of an adapter's trained scale."""


class SizeRecipe(Recipe):
    """Keys that a method can override at one size: the recipe, the rates by group, and the schedule's numbers."""

    rate_ratios: Annotated[RateRatios, at_default(RateRatios())] = RateRatios()
    """Ratios of groups at this size; the other groups keep those of the method."""

    warmup_steps: Annotated[Steps | None, Field(exclude_if=is_none)] = None
    """Optimizer steps over which the rate first climbs, at this size."""
    rewarmup_steps: Annotated[Steps | None, Field(exclude_if=is_none)] = None
    """Optimizer steps of the climb after each multiple of the period, at this size."""
    minimum_learning_rate_ratio: Annotated[Share | None, Field(exclude_if=is_none)] = None
    """Rate that the cosine ends at, as a share of the peak, at this size."""
    horizon_steps: Annotated[PositiveSteps | None, Field(exclude_if=is_none)] = None
    """Number of optimizer steps at which the schedule ends, at this size."""

    @property
    def schedule_overrides(self) -> dict[str, Any]:
        """Return the schedule's numbers that are set here, with their values."""
        keys = SizeRecipe.model_fields.keys() - Recipe.model_fields.keys() - {"rate_ratios"}
        return {key: getattr(self, key) for key in keys if getattr(self, key) is not None}


class Method(Recipe):
    """A way to train, as named switches, so that a new method is a block of YAML and no code."""

    label: Annotated[str | None, Field(min_length=1, exclude_if=is_none)] = None
    """What figures, tables and the paper call the method; null: its name, with spaces.

    It changes no training. Blocks that share keys by `<<` share the label, too, unless they set their own.
    """
    rank: NonNegativeInt
    """Rank of the adapters; 0 trains the whole weights, without adapters."""
    alpha: PositiveNumber = 1.0
    """The adapters' output is scaled by alpha / rank."""
    dropout: BelowOne = 0.0
    """Dropout on the adapters' input."""
    targets: list[Target] = Field(default=[])
    """Projections that get adapters.

    With `factor_rank` or `update`, those whose weights train so. `[all]` names every linear map of a layer.
    In llama, qwen3 and olmo2: q_proj, k_proj, v_proj, o_proj (attention), gate_proj, up_proj, down_proj (SwiGLU).
    In gpt_neox: query_key_value, dense (attention), dense_h_to_4h, dense_4h_to_h.
    """
    factor_rank: Annotated[PositiveInt | None, at_default(None)] = None
    """Rank of the product B A that each target trains in place of its weight; null: no product.

    The product begins as the best approximation of the weight that full rank begins with.
    """
    update: Annotated[
        str, AfterValidator(known_update), WithJsonSchema({"type": "string", "enum": [*UPDATES]}), at_default("plain")
    ] = "plain"
    """How the optimizer steps the targets' matrices: plain is AdamW (docs/methods.md).

    galore, fira and apollo keep Adam's moments of a projection of the gradient, which has `projection_rank`.
    muon makes the momentum's singular values equal, of whole weights or of each of A and B; spectron, lora_muon and
    smuon do so for the product of A and B.
    """
    momentum: Annotated[BelowOne, at_default(0.95)] = 0.95
    """Decay rate of the momentum of muon, spectron, lora_muon and smuon."""
    projection_rank: Annotated[PositiveInt | None, at_default(None)] = None
    """Rank that galore, fira and apollo project gradients to; null with another update."""
    projection_period: Annotated[PositiveSteps, at_default(200)] = 200
    """Optimizer steps from one projection to the next, of galore, fira and apollo."""
    projection_scale: Annotated[PositiveNumber, at_default(1.0)] = 1.0
    """Factor of the update that comes out of the projection (alpha; apollo: of the whole update)."""
    projection_scaling: Annotated[Literal["channel", "tensor"], at_default("channel")] = "channel"
    """channel | tensor: what apollo has a factor of its own for (tensor: APOLLO-Mini)."""
    rate_ratios: Annotated[RateRatios, at_default(RateRatios())] = RateRatios()
    """Learning rates of groups of parameters, as multiples of the schedule's rate.

    A group left out, and projections that are no targets, have the schedule's rate.
    """
    adapter_initialization: Literal["kaiming", "zero"] = "kaiming"
    """kaiming (A kaiming-uniform, B zero) | zero (A and B zero)."""
    trainable_scale: bool = False
    """Whether the factor alpha / rank of each adapter trains, from that value."""
    adapters_only: bool = False
    """Whether embeddings, norms and the head are frozen, too."""
    frozen_dtype: Annotated[Literal["float32", "bfloat16"], at_default("float32")] = "float32"
    """float32 | bfloat16: what the frozen weights of the targets are rounded to.

    bfloat16 has no float32 master: adapters take over a rounded weight, and each merge rounds it again.
    The adapters and all else that trains stay float32.
    """
    full_rank_steps: Steps = 0
    """Optimizer steps that the whole weights train before the adapters take over."""
    full_rank_from: Annotated[PositiveSteps | None, at_default(None)] = None
    """Optimizer steps after which adapters are folded in and all weights train; null: never."""
    merge: Literal["scaled", "unscaled", "none"] = "scaled"
    """scaled (W + alpha / rank * B A) | unscaled (W + B A) | none (a restart drops the adapter)."""
    restart: Literal["redraw", "orthogonal", "none", "undone"] = "redraw"
    """redraw (A anew, B zero) | orthogonal | none | undone (the step after a redraw undoes it).

    `orthogonal` draws A orthogonal to every earlier A of its layer.
    """
    scale_reset: Annotated[Literal["none", "zero"], at_default("none")] = "none"
    """none | zero (a restart sets a trained scale to 0, and leaves its moments as they are).

    After a first cycle with A = B = 0 there are no such moments, and no adapter ever learns.
    """
    reset_period: PositiveSteps | None = None
    """Optimizer steps from one reset to the next; null: no resets.

    At full rank there is nothing to merge. A reset clears the moments of the targets' weights there, and the schedule
    may dip, so that a study can tell what this rhythm costs without low rank.
    """
    cycle_ranks: Annotated[list[PositiveInt] | None, at_default(None)] = None
    """Rank of the adapters in each cycle; the last one stays; null: `rank`.

    None is above `rank`. The scale stays alpha / rank.
    """
    reset_offset: Steps = 0
    """Optimizer steps from each multiple of the period to the reset: at k x period + offset."""
    moment_reset: Literal["random", "magnitude", "full", "none"] = "none"
    """random | magnitude (the smallest) | full | none: what a reset clears of Adam's moments."""
    moment_reset_fraction: Share = 0.0
    """Share of the moments in `moment_scope` that a reset sets to zero.

    With `magnitude`, those up to this quantile of their sizes, as `torch.quantile` interpolates it.
    """
    moment_mask: Annotated[Literal["independent", "shared"], at_default("independent")] = "independent"
    """independent (each of Adam's two moments has its own choice) | shared (the first moment's)."""
    moment_scope: Annotated[Literal["adapters", "all"], at_default("adapters")] = "adapters"
    """adapters (at full rank, targets) | all (moments of embeddings, norms and head, too)."""
    schedule: Literal["linear", "cosine", "jagged_cosine"]
    """linear (warm-up, then straight to 0) | cosine | jagged_cosine (climbs after resets, too).

    `cosine` falls by half a cosine to a minimum. `jagged_cosine` does so, too, and starts again from 0 at each multiple
    of the reset period.
    """
    warmup_steps: Steps
    """Optimizer steps over which the rate first climbs to its peak."""
    rewarmup_steps: Steps = 0
    """Optimizer steps of the climb after each multiple of the period."""
    minimum_learning_rate_ratio: Share = 0.0
    """Rate that the cosine ends at, as a share of the peak."""
    horizon_steps: PositiveSteps
    """Number of optimizer steps at which the schedule ends; training may stop before."""
    sizes: Annotated[dict[Name, SizeRecipe] | None, Field(exclude_if=is_none)] = None
    """Keys that the method overrides at one size: recipe and schedule numbers for each size.

    For example `sizes: {small: {learning_rate: 3.0e-4, warmup_steps: 2000}}`.
    """

    @property
    def is_full_rank(self) -> bool:
        """Whether AdamW trains the whole weights: no adapters, no factors and no other update."""
        return not self.is_low_rank and self.update == "plain"

    @property
    def is_low_rank(self) -> bool:
        """Whether the targets train by adapters, by factors or by an update of low rank."""
        return bool(self.rank or self.factor_rank) or UPDATES[self.update].low_rank

    @property
    def is_published_kind(self) -> bool:
        """Whether the paper trained so: AdamW on whole weights or on adapters."""
        return self.update == "plain" and self.factor_rank is None

    @property
    def restarts(self) -> bool:
        """Whether the method resets adapters, as ReLoRA does."""
        return self.rank > 0 and self.reset_period is not None

    @property
    def clears_targets(self) -> bool:
        """Whether resets at full rank clear the moments of the targets' weights."""
        clears = self.moment_reset != "none" and self.moment_scope == "adapters"
        return not self.rank and self.reset_period is not None and clears

    @property
    def trains_whole_targets(self) -> bool:
        """Whether the targets' whole weights train in some step."""
        whole = not self.rank or self.full_rank_steps > 0 or self.full_rank_from is not None
        return whole and self.factor_rank is None and bool(self.targets)

    @property
    def target_rank(self) -> int:
        """Return the rank of what the targets get: adapters, factors or projections; 0 at full rank."""
        return self.rank or self.factor_rank or self.projection_rank or 0

    @property
    def scale(self) -> float:
        """Return the factor of B A in the forward pass, alpha / rank (Hu et al. 2021, section 4.1)."""
        return self.alpha / self.rank

    def targets_in(self, size: Size) -> list[str]:
        """Return the names of the targets at ``size``. Raises :class:`ValueError` where its architecture lacks one."""
        known = size.decoder.targets
        if lacking := [name for name in self.targets if name not in (ALL, *known)]:
            raise ValueError(
                f"targets: {size.architecture} has no {lacking[0]}; name some of {', '.join(known)}, or all"
            )
        return known if ALL in self.targets else self.targets

    def at_size(self, size: str) -> SizeRecipe:
        """Return the keys that the method overrides at ``size``."""
        return (self.sizes or {}).get(size, SizeRecipe())

    def switches_at(self, size: str) -> "Method":
        """Return the method's switches and its schedule at ``size``, without a recipe.

        Raises :class:`ValueError` if the schedule's numbers at this size do not go together.
        """
        switches, chosen = self.without("sizes", "label", *Recipe.model_fields).model_dump(), self.at_size(size)
        ratios = self.rate_ratios.model_dump() | chosen.rate_ratios.model_dump()
        try:
            return Method.model_validate(switches | chosen.schedule_overrides | {"rate_ratios": ratios})
        except ValidationError as error:
            raise ValueError(f"sizes.{size}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error

    @model_validator(mode="after")
    def _possible(self) -> Self:
        of_groups = self._problems_of_targets(), self._problems_of_rate_ratios()
        for problem in itertools.chain(*of_groups, self._problems(), self._problems_of_ranks()):
            raise ValueError(problem)
        return self

    def _problems_of_targets(self) -> Iterator[str]:
        """Yield what is wrong with the ways to train the targets, of which a method has at most one."""
        update, way = UPDATES[self.update], "factor_rank" if self.factor_rank else "rank"
        if self.rank and self.factor_rank:
            yield f"rank {self.rank} excludes factor_rank: adapters freeze the weights; set rank 0"
        if self.update != "plain" and (self.rank or self.factor_rank) and not update.factors:
            yield f"{way} excludes update {self.update}, which steps whole weights and no factors"
        if self.update != "plain" and not (self.rank or self.factor_rank or update.weights):
            yield f"update {self.update} steps factors: set rank or factor_rank"
        if "projection_rank" in update.keys and self.projection_rank is None:
            yield f"update {self.update}: projection_rank must be set with it"
        for key in sorted(keys_of_updates() - update.keys):
            if getattr(self, key) != Method.model_fields[key].default:
                users = ", ".join(name for name, other in UPDATES.items() if key in other.keys)
                yield f"{key} needs update {users}: update {self.update} does not read it"
        if self._does_something_to_targets and not self.targets:
            yield (
                "targets must name a projection: rank, factor_rank, update, rate_ratios.targets,"
                " or moment_reset with a reset_period, is set"
            )
        if self.targets and not self._does_something_to_targets:
            yield "targets need a rank above 0, factor_rank, update, rate_ratios.targets, or resets that clear moments"

    @property
    def _does_something_to_targets(self) -> bool:
        optimized = self.rank or self.factor_rank or self.update != "plain"
        return bool(optimized or self.rate_ratios.targets or self.clears_targets)

    def _problems_of_rate_ratios(self) -> Iterator[str]:
        """Yield each ratio of a group that the method never trains."""
        ratios = self.rate_ratios
        if ratios.targets and not self.trains_whole_targets:
            yield f"rate_ratios.targets {ratios.targets:g}: no whole weight of a target ever trains; remove it"
        if ratios.adapters and not (self.rank or self.factor_rank):
            yield f"rate_ratios.adapters {ratios.adapters:g}: the method has no adapters and no factors; remove it"
        always_frozen = self.adapters_only and not self.full_rank_steps and self.full_rank_from is None
        for group in ("embedding", "head", "norms"):
            if always_frozen and (ratio := getattr(ratios, group)):
                yield f"rate_ratios.{group} {ratio:g}: adapters_only freezes this group; remove it"

    def _problems(self) -> Iterator[str]:
        period = self.reset_period
        if not self.rank and (self.adapters_only or self.full_rank_steps):
            yield "rank must be above 0 when a switch of the adapters is set"
        if period and not self.rank and self.is_low_rank:
            yield "reset_period needs adapters or full rank: factors and projections are not reset"
        if period is not None and period <= max(self.rewarmup_steps, self.reset_offset):
            yield f"reset_period {period} must be longer than rewarmup_steps and reset_offset"
        if self.frozen_dtype == "bfloat16" and not self.rank:
            yield "frozen_dtype bfloat16 needs a rank above 0: without adapters no weight is frozen"
        if self.scale_reset == "zero" and not self.trainable_scale:
            yield "scale_reset zero needs trainable_scale: a fixed scale stays"
        if self.full_rank_from is not None and not (self.rank and self.full_rank_from > self.full_rank_steps):
            yield f"full_rank_from {self.full_rank_from} must be above full_rank_steps, and rank above 0"
        if self.schedule == "jagged_cosine" and period is None:
            yield "schedule jagged_cosine needs a reset_period"
        if self.warmup_steps >= self.horizon_steps:
            yield f"warmup_steps {self.warmup_steps} must be below horizon_steps {self.horizon_steps}"

    def _problems_of_ranks(self) -> Iterator[str]:
        if self.cycle_ranks is None:
            return
        if not self.cycle_ranks or max(self.cycle_ranks) > self.rank:
            yield f"cycle_ranks {self.cycle_ranks} must name a rank for each cycle, at most rank {self.rank}"
        if self.reset_period is None or self.restart not in ("redraw", "orthogonal"):
            yield "cycle_ranks needs a reset_period and a restart that draws A anew: redraw or orthogonal"


OF_RESTARTS = {"merge", "restart", "scale_reset", "cycle_ranks"}
OF_RESETS = {
    *OF_RESTARTS,
    *("reset_offset", "rewarmup_steps", "moment_reset", "moment_reset_fraction", "moment_mask", "moment_scope"),
}
OF_ADAPTERS = {
    *("alpha", "dropout", "adapter_initialization", "trainable_scale", "adapters_only", "frozen_dtype"),
    *("full_rank_steps", "full_rank_from", *OF_RESTARTS),
}

IDLE_IN_SCHEDULE: dict[str, set[str]] = {
    "linear": {"rewarmup_steps", "minimum_learning_rate_ratio"},
    "cosine": {"rewarmup_steps"},
    "jagged_cosine": set(),
}


def idle_keys(method: Method) -> set[str]:
    """The keys of ``method`` with which it trains the same, whatever their value.

    They are: those of adapters without adapters, those of resets without resets, those of clearing where nothing or
    all is cleared, and those of a schedule or an update that is another.
    """
    idle: set[str] = set()
    if not method.rank:
        idle |= OF_ADAPTERS
    if not method.rank and method.is_low_rank:
        idle |= {"reset_period"}
    if method.reset_period is None:
        idle |= OF_RESETS
    if method.moment_reset in ("none", "full"):
        idle |= {"moment_reset_fraction", "moment_mask"} | (
            {"moment_scope"} if method.moment_reset == "none" else set()
        )
    idle |= IDLE_IN_SCHEDULE[method.schedule]
    return idle | (keys_of_updates() - UPDATES[method.update].keys)
