"""A variant: a cell with some keys changed, under a name that says which and depends on nothing else."""

import itertools
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from ..errors import UserError
from .cells import Cell, make_cell
from .experiments import Point, Sweep
from .fields import Section
from .study import Study, cell_name, conflicts
from .training import Method, Model, RateRatios, Size, Train

# The recipe comes first: methods and sizes may set its keys apart, but a cell holds them in `train`.
SECTIONS: dict[str, type[Section]] = {"train": Train, "model": Model, "method": Method, "size": Size}
# The keys of each section; a dot parts a key of a section inside it.
KEYS = {section: list(kind.model_fields) for section, kind in SECTIONS.items()}
KEYS["method"] += [f"rate_ratios.{group}" for group in RateRatios.model_fields]
CYCLES_BEFORE_A_RUNG = 2  # a search compares nothing before a method has reset so often after its full-rank start
LARGE = 1e15  # from here on, a number is named with an exponent
MARK = "+"  # parts a method's name from what a variant changes in it; no method of the configuration may hold it


def section_of(key: str) -> str:
    """The section of a cell that holds ``key``. Raises :class:`UserError` where none does."""
    for section, keys in KEYS.items():
        if key in keys:
            return section
    known = sorted({key for keys in KEYS.values() for key in keys})
    raise UserError(f"{key!r} is no key of a method, a size, the model or the recipe; there are {', '.join(known)}")


def variant_name(method: str, point: Point) -> str:
    """What ``method`` is called with the keys of ``point`` changed, such as ``relora+learning_rate=0.001``."""
    return MARK.join([method, *(f"{key}={_written(point[key])}" for key in sorted(point))])


def _written(value: Any) -> str:
    """``value`` in a folder's name: small numbers without an exponent, because ``-`` parts a cell's name.

    Large numbers have one: Snakemake takes a name that ends in twenty zeros for an endless recursion.
    """
    if isinstance(value, list):
        return "_".join(map(_written, value))
    if isinstance(value, float) and abs(value) < LARGE:
        return np.format_float_positional(value, trim="-")
    if isinstance(value, float):
        return f"{value:g}".replace("e+", "e")
    return str(value).lower()


def vary(cell: Cell, point: Point) -> Cell:
    """``cell`` with the keys of ``point`` changed, under the variant's name; ``cell`` itself where there are none.

    Raises :class:`UserError`, which names the variant, where the changed settings are not possible together.
    """
    changed: dict[str, Any] = cell.model_dump()
    for key, value in point.items():
        *path, last = section_of(key), *key.split(".")
        reduce(lambda section, part: section.setdefault(part, {}), path, changed)[last] = value
    method = variant_name(cell.method_name, point)
    name = cell_name(cell.size_name, method, cell.seed)
    try:
        varied = Cell.model_validate(changed | {"method_name": method, "name": name})
    except ValidationError as error:
        raise UserError(f"the variant {name}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
    for problem in conflicts(f"methods.{method}", varied.method, varied.size_name, varied.size, varied.train):
        raise UserError(problem)
    return varied


def settled(cell: Cell, point: Point) -> Cell:
    """``cell`` with the keys of ``point`` changed, under its own name: the settings that a search chose for it."""
    return vary(cell, point).model_copy(update={"name": cell.name, "method_name": cell.method_name})


class Variant(NamedTuple):
    """A cell of an experiment, and what it changes."""

    cell: Cell
    point: Point


def sweep_variants(study: Study, sweep: Sweep) -> list[Variant]:
    """The cells of ``sweep``, sizes outermost, seeds innermost."""
    chosen = study.study
    points = sweep.space.candidates() if sweep.space else [Point()]
    return [
        Variant(vary(make_cell(study, size, method, seed), point), point)
        for size in sweep.sizes or chosen.sizes
        for method in sweep.methods or chosen.methods
        for point in points
        for seed in sweep.seeds or chosen.seeds
    ]


def candidates(study: Study, size: str, method: str) -> dict[str, Variant]:
    """What the study's search trains for a size and a method up to its last rung, by the cell's name.

    Every candidate is a cell for each of the search's seeds. Raises :class:`UserError` where the first rung is too
    early to compare them.
    """
    assert study.tuning is not None
    rungs, tried = study.tuning.rungs, []
    for point, seed in itertools.product(study.tuning.space_of(method).candidates(), study.tuning.seeds):
        base = make_cell(study, size, method, seed)
        last = base.train.model_copy(update={"steps": rungs[-1]})
        tried.append(Variant(vary(base.model_copy(update={"train": last, "rungs": rungs}), point), point))
        _require_cycles(tried[-1].cell)
    return {variant.cell.name: variant for variant in tried}


def _require_cycles(candidate: Cell) -> None:
    """Refuse a first rung that would judge a candidate by its warm start, or by less than two reset cycles."""
    method, first = candidate.method, candidate.rungs[0]
    begun = method.full_rank_steps + CYCLES_BEFORE_A_RUNG * (method.reset_period or 0)
    if first < begun:
        raise UserError(
            f"tuning.rungs: the first, {first}, is before step {begun}, where {candidate.method_name} ends its"
            f" full-rank start and {CYCLES_BEFORE_A_RUNG} reset cycles; begin there or later"
        )
