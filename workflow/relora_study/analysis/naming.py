"""How the report calls what was measured, and whether it draws the published curves; without pandas."""

from collections.abc import Mapping

from ..config import Cell, Evaluation, Report
from ..config.evaluated import BLIMP, PALOMA, is_blimp, is_paloma, plain_name
from .published_recipe import has_papers_shape

TEMPLATED = "the project's templated minimal pairs (not BLiMP)"


def suite_name(evaluation: Evaluation, report: Report) -> str:
    """What the minimal pairs are called: as the user says, the project's own, BLiMP, or by their file or dataset."""
    pairs = evaluation.minimal_pairs
    if report.suite:
        return report.suite
    if pairs.source == "templated":
        return TEMPLATED
    return BLIMP if is_blimp(pairs) else plain_name(pairs.path)


def texts_name(evaluation: Evaluation, report: Report) -> str:
    """What the texts of perplexity are called: as the user says, held-out documents, Paloma, or by their place."""
    texts = evaluation.perplexity
    if report.texts:
        return report.texts
    if texts.source == "held_out":
        return "held-out documents"
    return PALOMA if is_paloma(texts) else plain_name(texts.path)


def shows_published(report: Report, cells: Mapping[str, Cell]) -> bool:
    """Whether figures show the published curves beside ours: on request, or where all shapes are the paper's."""
    fits = report.published == "auto" and all(map(has_papers_shape, cells.values()))
    return fits or report.published == "overlay"
