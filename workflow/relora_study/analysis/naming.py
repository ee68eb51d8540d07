"""How the report calls what was measured, and whether it draws the published curves; without pandas."""

from collections.abc import Mapping
from pathlib import Path

from ..config import Cell, Evaluation, Report
from .published_recipe import has_papers_shape

BLIMP, PALOMA = "BLiMP", "Paloma"
TEMPLATED = "the project's templated minimal pairs (not BLiMP)"


def suite_name(evaluation: Evaluation) -> str:
    """The minimal pairs: BLiMP, by the name of its file or dataset, another suite, or the project's own."""
    pairs = evaluation.minimal_pairs
    return TEMPLATED if pairs.source == "templated" else _named(pairs.path if pairs.source != "url" else None, BLIMP)


def texts_name(evaluation: Evaluation) -> str:
    """The texts whose perplexity is measured: Paloma, by its path or dataset, other texts, or held-out documents."""
    texts = evaluation.perplexity
    return "held-out documents" if texts.source == "held_out" else _named(texts.path, PALOMA)


def _named(path: str | None, usual: str) -> str:
    """``usual`` where ``path`` does not say otherwise; else the name that it ends in."""
    return usual if path is None or usual.lower() in path.lower() else Path(path).stem


def shows_published(report: Report, cells: Mapping[str, Cell]) -> bool:
    """Whether figures show the published curves beside ours: on request, or where all shapes are the paper's."""
    fits = report.published == "auto" and all(map(has_papers_shape, cells.values()))
    return fits or report.published == "overlay"
