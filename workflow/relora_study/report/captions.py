"""Captions: one text for the web report and the paper, with the words that depend on what was run filled in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from ..config import Cell, Evaluation
from ..config import Report as Settings
from ..config.evaluated import BLIMP, PALOMA, is_blimp, is_paloma, own_name
from ..files import read_yaml
from .shapes import has_papers_shape

FILE = Path(__file__).parents[2] / "report" / "captions.yaml"
Shown = Literal["off", "overlay", "only"]
SUITES = {"templated": "the project's templated minimal pairs (not BLiMP)"}
OVERLAY = " Thin dashed lines: the released curves of the paper."


def suite_name(evaluation: Evaluation, report: Settings | None = None) -> str:
    """What the minimal pairs are called: as the user says, the project's own, BLiMP, or by their file or dataset."""
    pairs = evaluation.minimal_pairs
    if report and report.suite:
        return report.suite
    return SUITES.get(pairs.source) or (BLIMP if is_blimp(pairs) else own_name(pairs.path))


def texts_name(evaluation: Evaluation, report: Settings | None = None) -> str:
    """What the texts of perplexity are called: as the user says, held-out documents, Paloma, or by their place."""
    texts = evaluation.perplexity
    if report and report.texts:
        return report.texts
    if texts.source == "held_out":
        return "held-out documents"
    return PALOMA if is_paloma(texts) else own_name(texts.path)


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
    texts = read_yaml(FILE)
    chosen = texts["published"] if published == "only" else texts
    return {kind: {name: chosen[kind][name].format(**words) for name in chosen[kind]} for kind in ("figures", "tables")}


def chapters() -> dict[str, str]:
    """The chapter of the web report that each figure belongs to."""
    texts = read_yaml(FILE)
    return {name: chapter for chapter, names in texts["chapters"].items() for name in names}
