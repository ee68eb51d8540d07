"""Captions for the web report and the paper, with the words filled in that depend on the study."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..config import Cell
from ..config.benchmark_names import BLIMP
from ..storage.files import read_yaml
from .numbers import in_words

FILE = Path(__file__).parents[2] / "report" / "captions.yaml"
PAGES = ("paper", "explore", "pages", "reproducibility")  # parts of which a document has one
OVERLAY = " Thin dashed lines: the published curves of the paper."

Captions = dict[str, dict[str, str]]


def captions(cells: Mapping[str, Cell], overlay: bool, suite: str) -> Captions:
    """The captions of our runs: kind ("figures", "tables", or a page of `PAGES`) -> name -> caption.

    The caption of a figure or table ends with the files behind it, seen from results/.
    ``overlay`` says whether the figures also draw the published curves. ``suite`` is the name of the minimal pairs.
    """
    seeds = len({cell.seed for cell in cells.values()})
    words = {
        "pairs": suite,
        "means": f" Means over {seeds} seeds; small points: seeds." * (seeds > 1),
        "seeds": f" Means over {seeds} seeds, with bands of 95 % bootstrap intervals; small points: seeds."
        * (seeds > 1),
        "layers": " Bands: 95 % bootstrap intervals over layers" + " and seeds" * (seeds > 1) + ".",
        "overlay": OVERLAY if overlay else "",
    }
    made = _filled(_texts(), words)
    made["figures"] = {name: f"{text} From {', '.join(_drawn_from(name))}." for name, text in made["figures"].items()}
    made["tables"] = {name: f"{text} In full precision: tables/{name}.csv." for name, text in made["tables"].items()}
    return made


def _drawn_from(figure: str) -> list[str]:
    """The files that ``figure`` is drawn from, seen from results/."""
    return [file for file, figures in _texts()["sources"].items() if figure in figures]


def published_captions() -> Captions:
    """The captions of the figures and tables of the published values."""
    made = _filled(_texts()["published"], {"pairs": BLIMP})
    return made | {"figures": {name: f"{text} From resources/published." for name, text in made["figures"].items()}}


def experiment_caption(name: str, kind: str, compares: bool = False) -> str:
    """The caption of the ``kind`` ("figure", "table") of the sweep ``name``, or of the search.

    ``compares`` tells whether the sweep compares methods (`against`).
    """
    of = "search" if name == "search" else "comparison" if compares else "sweep"
    text = str(_texts()["experiments"][f"{of}_{kind}"]).format(name=in_words(name))
    source = f"tables/experiment_{name}" + ".runs" * (kind == "figure") + ".csv"
    return f"{text} From {source}."


def chapters() -> dict[str, str]:
    """The chapter of the web report that each figure belongs to."""
    return {name: chapter for chapter, names in _texts()["chapters"].items() for name in names}


def title(name: str) -> str:
    """The title of the figure or table ``name``; of an experiment, its name in words."""
    known: dict[str, str] = _texts()["titles"]
    return known.get(name) or in_words(name.removeprefix("experiment_")).capitalize()


def meanings(methods: Iterable[str]) -> dict[str, str]:
    """Those of ``methods`` that the project describes, each with its sentence."""
    known: dict[str, str] = _texts()["methods"]
    return {name: known[name] for name in methods if name in known}


@cache
def _texts() -> dict[str, Any]:
    texts: dict[str, Any] = read_yaml(FILE)
    return texts


def _filled(texts: Mapping[str, Any], words: Mapping[str, str]) -> Captions:
    kinds = {"figures": texts["figures"], "tables": texts["tables"]}
    kinds |= {name: {name: texts[name]} for name in PAGES if name in texts}
    return {kind: {name: text.format(**words).strip() for name, text in texts.items()} for kind, texts in kinds.items()}
