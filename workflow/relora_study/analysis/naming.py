"""The names that the report gives to suites and texts, and whether it draws published curves.

No pandas here: Snakemake imports this module at each start.
"""

from collections.abc import Mapping

from ..config import Cell, Evaluation, Report
from ..config.benchmark_names import BLIMP, PALOMA, is_blimp, is_paloma, plain_name
from .published_recipe import has_papers_shape

TEMPLATED = "the project's templated minimal pairs (not BLiMP)"


def suite_name(evaluation: Evaluation, report: Report) -> str:
    """The name of the minimal pairs: from the settings, else from their source (built-in, BLiMP, file, dataset)."""
    pairs = evaluation.minimal_pairs
    if report.suite:
        return report.suite
    if pairs.source == "templated":
        return TEMPLATED
    return BLIMP if is_blimp(pairs) else plain_name(pairs.path)


def texts_name(evaluation: Evaluation, report: Report) -> str:
    """The name of the texts of perplexity: from the settings, else from their source (held out, Paloma, file)."""
    texts = evaluation.perplexity
    if report.texts:
        return report.texts
    if texts.source == "held_out":
        return "held-out documents"
    return PALOMA if is_paloma(texts) else plain_name(texts.path)


def shows_published(report: Report, cells: Mapping[str, Cell]) -> bool:
    """Whether figures show published curves beside our runs: on request, or where all cells have the paper's shape."""
    fits = report.published == "auto" and all(map(has_papers_shape, cells.values()))
    return fits or report.published == "overlay"
