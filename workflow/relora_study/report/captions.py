"""Captions: one text for the web report and the paper, with the words that depend on what was run filled in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import yaml

from ..config import Cell, Evaluation
from ..config import Report as Settings
from .shapes import has_papers_shape

FILE = Path(__file__).parents[2] / "report" / "captions.yaml"
Shown = Literal["off", "overlay", "only"]
SUITES = {"templated": "the project's templated minimal pairs (not BLiMP)"}
OVERLAY = " Thin dashed lines: the released curves of the paper."


def suite_name(evaluation: Evaluation) -> str:
    """What the minimal pairs are: BLiMP, wherever it comes from, or the project's own."""
    return SUITES.get(evaluation.minimal_pairs.source, "BLiMP")


def shown(report: Settings, cells: Mapping[str, Cell]) -> Shown:
    """Whether the released curves are drawn: on request, or where all shapes are the paper's."""
    fits = report.published == "auto" and all(map(has_papers_shape, cells.values()))
    return "overlay" if fits or report.published == "overlay" else "off"


def captions(cells: Mapping[str, Cell], published: Shown, suite: str) -> dict[str, dict[str, str]]:
    """Kind ("figures", "tables") -> name -> caption. Without cells, of what the released values alone give."""
    seeds = len({cell.seed for cell in cells.values()})
    words = {
        "pairs": "BLiMP" if published == "only" else suite,
        "seeds": f" Means over {seeds} seeds; bands: 95 % bootstrap intervals." if seeds > 1 else "",
        "layers": ""
        if published == "only"
        else " Bands: 95 % bootstrap intervals over layers" + " and seeds" * (seeds > 1) + ".",
        "overlay": OVERLAY if published == "overlay" else "",
    }
    texts = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    chosen = texts["published"] if published == "only" else texts
    return {kind: {name: chosen[kind][name].format(**words) for name in chosen[kind]} for kind in ("figures", "tables")}


def chapters() -> dict[str, str]:
    """The chapter of the web report that each figure belongs to."""
    texts = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {name: chapter for chapter, names in texts["chapters"].items() for name in names}
