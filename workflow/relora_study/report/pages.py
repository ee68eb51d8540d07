"""Two pages of the web report: every figure and every table, each with its title and caption."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .captions import Captions, chapters, title
from .numbers import in_rows
from .templates import render

Part = dict[str, Any]  # name, title, caption, the rule that makes it, and an image or a table of rows


def figures_page(folder: Path, captions: Captions, experiments: Mapping[str, str]) -> str:
    """The page of the figures in ``folder``, by chapter; ``experiments`` has the captions of theirs."""
    by_chapter: dict[str, list[Part]] = {}
    for name, chapter in chapters().items():
        if name in captions["figures"]:
            by_chapter.setdefault(chapter, []).append(_figure(folder, name, captions["figures"][name]))
    if experiments:
        by_chapter["Experiments"] = [_figure(folder, name, caption) for name, caption in experiments.items()]
    return render("page.html", {"heading": "Figures", "chapters": by_chapter})


def tables_page(folder: Path, captions: Captions, experiments: Mapping[str, str]) -> str:
    """The page of the tables in ``folder``, which a reader sorts; ``experiments`` has the captions of theirs."""
    captioned = {**captions["tables"], **experiments}
    parts = [_table(folder, name, caption) for name, caption in captioned.items()]
    return render("page.html", {"heading": "Tables", "chapters": {"": parts}})


def _part(name: str, caption: str, rule: str) -> Part:
    rule = f"experiment_{rule}" if name.startswith("experiment_") else rule
    return {"name": name, "title": title(name), "caption": caption, "rule": rule}


def _figure(folder: Path, name: str, caption: str) -> Part:
    return _part(name, caption, "figure") | {"image": base64.b64encode((folder / f"{name}.png").read_bytes()).decode()}


def _table(folder: Path, name: str, caption: str) -> Part:
    return _part(name, caption, "table") | {"table": in_rows(pd.read_csv(folder / f"{name}.csv"))}
