"""Which settings an experiment tries: a grid, a list of points, or a Sobol sample of ranges."""

import itertools
import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from scipy.stats import qmc

from ..config import Number, PositiveInt, Section

Value = bool | int | Number | str | list[Number] | None
Point = dict[str, Value]
SIGNIFICANT_DIGITS = 3  # of a sampled value: enough to search with, and short enough for a folder's name


class Range(Section):
    """The values that a Sobol sample may take of one key, from ``low`` to ``high``."""

    low: Number
    high: Number
    scale: Literal["linear", "log"] = "linear"
    integer: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"low {self.low:g} must be above 0 on a log scale")
        return self

    def at(self, share: float) -> float | int:
        """The value at ``share`` (0 to 1) of the way, to three significant digits or the nearest integer."""
        if self.scale == "log":
            value = self.low * (self.high / self.low) ** share
        else:
            value = self.low + (self.high - self.low) * share
        return round(value) if self.integer else float(f"{value:.{SIGNIFICANT_DIGITS}g}")


class Space(Section):
    """Exactly one of ``grid`` (every combination), ``points`` (each as written) and ``sobol`` (a sample of ranges)."""

    grid: dict[str, Annotated[list[Value], Field(min_length=1)]] | None = None
    points: Annotated[list[Point], Field(min_length=1)] | None = None
    sobol: dict[str, Range] | None = None
    size: PositiveInt | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [kind for kind in ("grid", "points", "sobol") if getattr(self, kind)]
        if len(kinds) != 1:
            raise ValueError(f"exactly one of grid, points and sobol is needed, not {kinds or 'none'}")
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
        """The settings to try, each once, in an order that depends on the configuration alone.

        A larger ``size`` of a Sobol sample (Owen-scrambled by ``seed``; Sobol 1967) appends points and keeps the first.
        """
        if self.sobol and self.size:
            tried = self._sampled(self.sobol, self.size)
        else:
            combinations = itertools.product(*self.grid.values()) if self.grid else ()
            tried = self.points or [dict(zip(self.keys, values, strict=True)) for values in combinations]
        return [point for number, point in enumerate(tried) if point not in tried[:number]]

    def _sampled(self, ranges: dict[str, Range], size: int) -> list[Point]:
        sampler = qmc.Sobol(d=len(ranges), scramble=True, rng=self.seed)
        shares = sampler.random_base2(math.ceil(math.log2(size)))[:size]  # a power of two keeps the sample balanced
        return [
            {key: limits.at(share) for (key, limits), share in zip(ranges.items(), row, strict=True)} for row in shares
        ]
