"""Sections about experiments: what a sweep tries, and how a search finds each method's own settings."""

import itertools
import math
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from .fields import (
    Name,
    NonNegativeInt,
    PositiveInt,
    PositiveSteps,
    ProperShare,
    Section,
    Seed,
    Seeds,
    Unit,
    as_number,
    is_none,
)

PREVIOUS = "previous"  # what a sweep's methods are compared with, each with the one before it
SIGNIFICANT_DIGITS = 3  # of a sampled value: enough to search with, and short enough for a folder's name

Number = Annotated[float, BeforeValidator(as_number)]
Value = Annotated[Any, BeforeValidator(as_number)]
Point = dict[str, Any]


class Range(Section):
    """The values that a Sobol sample takes of one key."""

    low: Number
    """Smallest value."""
    high: Number
    """Largest value."""
    scale: Literal["linear", "log"] = "linear"
    """linear | log: whether equal differences or equal ratios are equally likely."""
    integer: bool = False
    """Whether values are rounded to whole numbers; the others have three significant digits."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"low {self.low:g} must be above 0 on a log scale")
        return self

    def at(self, share: float) -> float | int:
        """The value at ``share`` (0 to 1) of the way from ``low`` to ``high``."""
        if self.scale == "log":
            value = self.low * (self.high / self.low) ** share
        else:
            value = self.low + (self.high - self.low) * share
        return round(value) if self.integer else float(f"{value:.{SIGNIFICANT_DIGITS}g}")


class Space(Section):
    """Which settings are tried: exactly one of `grid`, `points` and `sobol`.

    Its keys are keys of a method, a size, `model` or `train`, such as `learning_rate`, `rank` or `d_model`.
    """

    grid: Annotated[dict[str, Annotated[list[Value], Field(min_length=1)]] | None, Field(exclude_if=is_none)] = None
    """Lists of values by key; every combination is tried."""
    points: Annotated[list[dict[str, Value]] | None, Field(min_length=1, exclude_if=is_none)] = None
    """A list of settings, each tried as it is written."""
    sobol: Annotated[dict[str, Range] | None, Field(exclude_if=is_none)] = None
    """Ranges by key, from which `size` points are drawn that fill the space evenly (Sobol 1967)."""
    size: Annotated[PositiveInt | None, Field(exclude_if=is_none)] = None
    """Number of points of a Sobol sample; a larger one keeps the points of a smaller one."""
    sobol_seed: NonNegativeInt = 0
    """Seed of the scrambling of a Sobol sample (Owen 1997)."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [kind for kind in ("grid", "points", "sobol") if getattr(self, kind)]
        if len(kinds) != 1:
            raise ValueError(f"exactly one of grid, points and sobol is needed, not {' and '.join(kinds) or 'none'}")
        if bool(self.sobol) != bool(self.size):
            raise ValueError("size, the number of points, goes with sobol and with nothing else")
        if self.points and any(set(point) != set(self.points[0]) for point in self.points):
            raise ValueError("all points must set the keys of the first")
        return self

    @property
    def keys(self) -> list[str]:
        """The keys that vary, in the order in which the configuration names them."""
        return list(self.grid or self.sobol or (self.points or [{}])[0])

    def candidates(self) -> list[Point]:
        """The settings to try, each once, in an order that depends on the configuration alone."""
        if self.sobol and self.size:
            tried = _sample(self.sobol, self.size, self.sobol_seed)
        else:
            combinations = itertools.product(*self.grid.values()) if self.grid else ()
            tried = self.points or [dict(zip(self.keys, values, strict=True)) for values in combinations]
        return [point for number, point in enumerate(tried) if point not in tried[:number]]


def _sample(ranges: dict[str, Range], size: int, seed: int) -> list[Point]:
    from scipy.stats import qmc  # not in the environment of the data jobs, which read no experiment

    sampler = qmc.Sobol(d=len(ranges), scramble=True, rng=seed)
    shares = sampler.random_base2(math.ceil(math.log2(size)))[:size]  # a power of two keeps the sample balanced
    return [{key: limits.at(share) for (key, limits), share in zip(ranges.items(), row, strict=True)} for row in shares]


class Sweep(Section):
    """Cells beside the study's own, of which the loss on held-out text is measured at the last step."""

    space: Annotated[Space | None, Field(exclude_if=is_none)] = None
    """What varies; null: the methods as they are."""
    methods: Annotated[list[str] | None, Field(exclude_if=is_none)] = None
    """Names of blocks under `methods`; null: those of the study."""
    sizes: Annotated[list[str] | None, Field(exclude_if=is_none)] = None
    """Names of blocks under `sizes`; null: those of the study."""
    seeds: Annotated[Seeds | None, Field(exclude_if=is_none)] = None
    """A list, or how many from 42 on; null: those of the study."""
    against: Annotated[str | None, Field(exclude_if=is_none)] = None
    """Method that the others are compared with by seed; previous: each with the one before it."""

    @model_validator(mode="after")
    def _methods_alone(self) -> Self:
        if self.against and self.space:
            raise ValueError("against compares methods as they are, and space varies them; leave one out")
        return self


class Tuning(Section):
    """How each size and method finds its own settings, all on equal budgets (successive halving).

    Candidates train from seeds that no cell of the study has. They are compared by their loss on the validation
    documents. The study's cells then train with the best settings.
    """

    space: Space
    """What is tried for each method."""
    spaces: Annotated[dict[Name, Space] | None, Field(exclude_if=is_none)] = None
    """What is tried for the methods named here instead, with as many candidates."""
    rungs: Annotated[list[PositiveSteps], Field(min_length=1), Unit("optimizer steps")]
    """Optimizer steps at which candidates are compared; the last may be below `train.steps`."""
    keep: ProperShare = 0.5
    """Share of the candidates that goes on from one rung to the next; at least one does."""
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(default=[1000, 1001])
    """Seeds of the candidates: all train with the first, and those at the last rung with each."""

    @model_validator(mode="after")
    def _equal_budgets(self) -> Self:
        if self.rungs != sorted(set(self.rungs)):
            raise ValueError(f"rungs {self.rungs} must rise")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds} names one twice")
        counts = {name: len(space.candidates()) for name, space in {"space": self.space, **(self.spaces or {})}.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"every method needs as many candidates as the others: {counts}")
        return self

    def space_of(self, method: str) -> Space:
        """What is tried for ``method``."""
        return (self.spaces or {}).get(method, self.space)

    def survivors(self, rung: int) -> int:
        """How many candidates train up to ``rung``, counted from 0."""
        alive = len(self.space.candidates())
        for _ in range(rung):
            alive = max(1, math.ceil(alive * self.keep))
        return alive
