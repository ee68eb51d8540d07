"""The templates in workflow/report, filled: the words stand there, and Python gives them facts and these filters."""

import re
from collections.abc import Callable
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .escape import markdown, rst
from .numbers import Rows, listed, method_label, plain, setting

FOLDER = Path(__file__).parents[2] / "report"


def render(template: str, told: dict[str, Any]) -> str:
    """The ``template`` of workflow/report, filled with what is ``told``."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"label": method_label, "listed": listed, "plain": plain, "setting": setting}
    environment.filters |= {"pipe": partial(_drawn, escaped=markdown, kind="pipe")}
    environment.filters |= {"grid": partial(_drawn, escaped=rst, kind="grid"), "columns": _columns, "rst": rst}
    environment.filters |= {"code": _code, "marked": _marked}
    return environment.get_template(template).render(told)


def _columns(rows: Rows) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(map(str.rstrip, padded))


def _drawn(rows: Rows, escaped: Callable[[str], str], kind: str) -> str:
    """A table of text with its lines drawn in characters, in a ``kind`` of `tabulate`."""
    header, *cells = ([escaped(cell) for cell in row] for row in rows)
    return str(pd.DataFrame(cells, columns=header).to_markdown(index=False, tablefmt=kind, disable_numparse=True))


def _code(file: str) -> str:
    """``file`` as code; brackets around it, which mark a file of the project, stay outside."""
    return f"(`{file[1:-1]}`)" if file.startswith("(") else f"`{file}`"


def _marked(line: str) -> str:
    """``line`` escaped for HTML, with what stands between backticks as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(line))
