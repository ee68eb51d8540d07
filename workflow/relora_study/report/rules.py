"""The rules of methods as tables of the paper: those of the study, and those in which the methods of a sweep differ."""

from collections.abc import Mapping
from typing import Any

from ..config import Cell, RateRatios, Section
from ..config.method import Method, idle_keys
from ..config.training import Recipe
from .numbers import MISSING, method_label, setting

Rows = list[list[str]]
COLUMNS = {
    "rank": "r",
    "alpha": "α",
    "adapter_initialization": "first A",
    "merge": "merge",
    "restart": "restart",
    "reset_period": "cycle",
    "schedule": "schedule",
    "warmup_steps": "warm-up",
    "rewarmup_steps": "re-warm-up",
}


def rules(cells: Mapping[str, Cell]) -> Rows:
    """The main rules of each method, of which ``cells`` holds a cell: a header, and a row a method.

    Rates of groups are among them where a method has any.
    """
    methods = {name: _values(cell) | {"rank": cell.method.target_rank or None} for name, cell in cells.items()}
    apart = any(cell.method.rate_ratios != RateRatios() for cell in cells.values())
    return _table(methods, COLUMNS | ({"rate_ratios": "rate ratios"} if apart else {}))


def differing_rules(cells: Mapping[str, Cell]) -> Rows:
    """The rules in which methods differ, full rank aside: a header, and a row a method; nothing if none differs."""
    methods = {name: _values(cell) for name, cell in cells.items()}
    compared = [values for name, values in methods.items() if not cells[name].method.is_full_rank]
    keys = [key for key in Method.model_fields if len({str(values[key]) for values in compared}) > 1]
    return _table(methods, {key: key.replace("_", " ") for key in keys}) if keys else []


def _values(cell: Cell) -> dict[str, Any]:
    """The rules of a cell's method by key, with its recipe; None where a key says nothing of it."""
    silent = set() if cell.method.rank else idle_keys(cell.method)
    values = {key: None if key in silent else getattr(cell.method, key) for key in Method.model_fields}
    return values | {key: getattr(cell.train, key) for key in Recipe.model_fields}


def _table(methods: Mapping[str, Mapping[str, Any]], columns: Mapping[str, str]) -> Rows:
    rows = [[method_label(name), *(_words(values[key]) for key in columns)] for name, values in methods.items()]
    return [["method", *columns.values()], *rows]


def _words(value: Any) -> str:
    if isinstance(value, Section):
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.model_dump().items()) or MISSING
    return ", ".join(map(_words, value)) if isinstance(value, list | tuple) else setting(value).replace("_", " ")
