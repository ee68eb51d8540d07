"""The rules of methods as tables of the paper: those of the study, and those in which the methods of a sweep differ."""

from collections.abc import Mapping
from typing import Any

from ..config import Cell, Section
from ..config.method import Method, idle_keys
from ..config.training import Recipe
from .numbers import MISSING, Rows, in_words, method_label, setting

COLUMNS = {
    "rank": "rank r",
    "alpha": "scale α",
    "adapter_initialization": "first A",
    "merge": "merge",
    "restart": "restart",
    "reset_period": "steps of a cycle",
    "schedule": "schedule",
    "warmup_steps": "warm-up steps",
    "rewarmup_steps": "re-warm-up steps",
}


def rules(cells: Mapping[str, Cell]) -> Rows:
    """The main rules of each method, of which ``cells`` holds a cell, and every other in which methods differ.

    A header with the methods, and a row a rule. A dash marks a rule that says nothing of a method.
    """
    methods = {name: _values(cell) | {"rank": cell.method.target_rank or None} for name, cell in cells.items()}
    keys = [key for key in (*Method.model_fields, *Recipe.model_fields) if key not in COLUMNS]
    apart = [key for key in keys if len({str(values[key]) for values in methods.values()} - {"None"}) > 1]
    table = _table(methods, COLUMNS | {key: in_words(key) for key in apart})
    return [list(row) for row in zip(*table, strict=True)]


def differing_rules(cells: Mapping[str, Cell]) -> Rows:
    """The rules in which methods differ, full rank aside: a header, and a row a method; nothing if none differs."""
    methods = {name: _values(cell) for name, cell in cells.items()}
    compared = [values for name, values in methods.items() if not cells[name].method.is_full_rank]
    keys = [key for key in Method.model_fields if len({str(values[key]) for values in compared}) > 1]
    return _table(methods, {key: in_words(key) for key in keys}) if keys else []


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
    return in_words(setting(value))
