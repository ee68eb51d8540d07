"""A variant: a cell with some keys changed, under a name that says which and depends on nothing else."""

import hashlib
from collections.abc import Iterator
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from ..errors import UserError
from .cells import MARK, Cell, cells, make_cell, valid_cell
from .experiments import Point, Sweep
from .fields import Section
from .method import Method, RateRatios, idle_keys
from .study import Study, cell_name
from .training import Model, Recipe, Size, Train

SECTIONS: dict[str, type[Section]] = {"train": Train, "model": Model, "method": Method, "size": Size}
OF_TOKENS = ("vocab_size", "context_length")  # the settings of the token ids, which all cells share
# The keys of each section of a cell, which holds what methods and sizes set apart in `train`. A dot parts a key of a
# section inside it.
APART = {"sizes", "label", *Recipe.model_fields}
KEYS = {section: [key for key in kind.model_fields if key not in OF_TOKENS] for section, kind in SECTIONS.items()}
KEYS |= {section: [key for key in KEYS[section] if key not in APART] for section in ("method", "size")}
KEYS["method"] += [f"rate_ratios.{group}" for group in RateRatios.model_fields]
CYCLES_BEFORE_A_RUNG = 2  # a search compares nothing before a method has reset so often after its full-rank start
LARGE = 1e15  # from here on, a number is named with an exponent
LONGEST = 160  # bytes of a variant's name: a file's name has at most 255, with a size, a method and a job in it
UNTUNED = "untuned"  # what a sweep's cell is called that changes nothing, beside a study whose cells are tuned


def section_of(key: str) -> str:
    """The section of a cell that holds ``key``. Raises :class:`UserError` where none does."""
    if key in OF_TOKENS:
        raise UserError(f"{key} cannot vary: all cells share the token ids that it shapes; run a study for each value")
    for section, keys in KEYS.items():
        if key in keys:
            return section
    known = sorted({key for keys in KEYS.values() for key in keys})
    raise UserError(f"{key!r} is no key of a method, a size, the model or the recipe; there are {', '.join(known)}")


def variant_name(method: str, point: Point) -> str:
    """What ``method`` is called with the keys of ``point`` changed, such as ``relora+learning_rate=0.001``.

    A name too long for a file's keeps its first keys, and a hash stands for all.
    """
    parts = [method, *(f"{key}={_written(point[key])}" for key in sorted(point))]
    whole = MARK.join(parts)
    if len(whole.encode()) <= LONGEST:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:10]
    while len(MARK.join([*parts, digest]).encode()) > LONGEST and len(parts) > 1:
        parts.pop()
    return MARK.join([*parts, digest])


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
    return _changed(cell, point, variant_name(cell.method_name, point))


def with_search_result(cell: Cell, point: Point) -> Cell:
    """``cell`` with the keys of ``point`` changed, under its own name: the settings that a search chose for it."""
    return _changed(cell, point, cell.method_name)


def _changed(cell: Cell, point: Point, method: str) -> Cell:
    changed: dict[str, Any] = cell.model_dump()
    for key, value in point.items():
        *path, last = section_of(key), *key.split(".")
        reduce(lambda section, part: section.setdefault(part, {}), path, changed)[last] = value
    changed |= {"method_name": method, "name": cell_name(cell.size_name, method, cell.seed)}
    try:
        return valid_cell(**changed)
    except UserError as error:
        named = cell_name(cell.size_name, variant_name(cell.method_name, point), cell.seed)
        raise UserError(f"the variant {named}: {error}") from error


class Variant(NamedTuple):
    """A cell of an experiment, and what it changes."""

    cell: Cell
    point: Point


def variants(cell: Cell, points: list[Point]) -> list[Variant]:
    """The variants of ``cell`` at ``points``, each once: a point leaves out the keys that do nothing there."""
    used: list[Point] = []
    for point in points:
        switches = {key: value for key, value in point.items() if section_of(key) == "method"}
        idle = idle_keys(cell.method.model_copy(update=switches))
        if (rest := {key: value for key, value in point.items() if key not in idle}) not in used:
            used.append(rest)
    return [Variant(vary(cell, point), point) for point in used]


def sweep_variants(study: Study, sweep: Sweep) -> list[Variant]:
    """The cells of ``sweep``, sizes outermost, seeds innermost.

    They have the settings of the configuration and the sweep's own, never those that a search chose. So what a sweep
    trains unchanged beside a search has a name of its own.
    """
    chosen = study.study
    points = sweep.space.candidates() if sweep.space else [Point()]
    pairs = ((size, method) for size in sweep.sizes or chosen.sizes for method in sweep.methods or chosen.methods)
    found = []
    for size, method in pairs:
        of_seeds = [variants(make_cell(study, size, method, seed), points) for seed in sweep.seeds or chosen.seeds]
        found += [variant for of_point in zip(*of_seeds, strict=True) for variant in of_point]
    return [variant if variant.point or not study.tuning else _untuned(variant) for variant in found]


def _untuned(variant: Variant) -> Variant:
    cell = variant.cell
    method = f"{cell.method_name}{MARK}{UNTUNED}"
    named = {"method_name": method, "name": cell_name(cell.size_name, method, cell.seed)}
    return variant._replace(cell=cell.model_copy(update=named))


def candidates(study: Study, size: str, method: str) -> dict[str, Variant]:
    """What the study's search trains for a size and a method up to its last rung, by the cell's name.

    Every candidate is a cell for each of the search's seeds. Raises :class:`UserError` where the first rung is too
    early to compare them.
    """
    assert study.tuning is not None
    rungs, points = study.tuning.rungs, study.tuning.space_of(method).candidates()
    found = {}
    for seed in study.tuning.seeds:
        base = make_cell(study, size, method, seed)
        last = base.train.model_copy(update={"steps": rungs[-1]})
        for variant in variants(base.model_copy(update={"train": last, "rungs": rungs}), points):
            _require_cycles(variant.cell)
            found[variant.cell.name] = variant
    return found


def _require_cycles(candidate: Cell) -> None:
    """Refuse a first rung that would judge a candidate by its warm start, or by less than two reset cycles."""
    method, first = candidate.method, candidate.rungs[0]
    begun = method.full_rank_steps + CYCLES_BEFORE_A_RUNG * (method.reset_period or 0)
    if first < begun:
        raise UserError(
            f"tuning.rungs: the first, {first}, is before step {begun}, where {candidate.method_name} ends its"
            f" full-rank start and {CYCLES_BEFORE_A_RUNG} reset cycles; begin there or later"
        )


def every_cell(study: Study) -> Iterator[Cell]:
    """Every cell that a study may train: its own, those of sweeps, candidates, and its own with a candidate's settings.

    Raises :class:`UserError`, which names the place in the configuration, where one cannot train.
    """
    own = cells(study)
    yield from own.values()
    place = ""
    try:
        for name, sweep in (study.sweeps or {}).items():
            place = f"sweeps.{name}"
            found = sweep_variants(study, sweep)
            _require_used(sweep, found)
            yield from (variant.cell for variant in found)
        place = "tuning"
        searched = {(cell.size_name, cell.method_name): cell for cell in own.values() if study.tuning}
        for cell in searched.values():
            for variant in candidates(study, cell.size_name, cell.method_name).values():
                yield from (variant.cell, with_search_result(cell, variant.point))
    except UserError as error:
        raise UserError(f"{place}: {error}") from error


def _require_used(sweep: Sweep, found: list[Variant]) -> None:
    """Refuse a key of a sweep's space that none of its methods uses: it would vary nothing."""
    used = {key for variant in found for key in variant.point}
    for key in sweep.space.keys if sweep.space else ():
        if key not in used:
            methods = ", ".join(dict.fromkeys(variant.cell.method_name for variant in found))
            raise UserError(f"{key} changes nothing in {methods}; remove the key, or name methods that use it")
