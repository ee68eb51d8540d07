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
    """What the minimal pairs are: BLiMP, by the name of its file or dataset, another suite, or the project's own."""
    pairs = evaluation.minimal_pairs
    return SUITES.get(pairs.source) or _named(pairs.path if pairs.source != "url" else None, "BLiMP")


def texts_name(evaluation: Evaluation) -> str:
    """What the texts are whose perplexity is measured, in the same way."""
    texts = evaluation.perplexity
    return "held-out documents" if texts.source == "held_out" else _named(texts.path, "Paloma")


def _named(path: str | None, usual: str) -> str:
    """``usual`` where ``path`` does not say otherwise; else the name that it ends in."""
    return usual if path is None or usual.lower() in path.lower() else Path(path).stem


def shown(report: Settings, cells: Mapping[str, Cell]) -> Shown:
    """Whether the released curves are drawn: on request, or where all shapes are the paper's."""
    fits = report.published == "auto" and all(map(has_papers_shape, cells.values()))
    return "overlay" if fits or report.published == "overlay" else "off"


def captions(cells: Mapping[str, Cell], published: Shown, suite: str) -> dict[str, dict[str, str]]:
    """Kind ("figures", "tables") -> name -> caption. Without cells, of what the released values alone give."""
    seeds = len({cell.seed for cell in cells.values()})
    words = {
        "pairs": "BLiMP" if published == "only" else suite,
        "means": f" Means over {seeds} seeds." if seeds > 1 else "",
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
