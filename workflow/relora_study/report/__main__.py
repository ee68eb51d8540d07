"""`python -m relora_study.report`: figures, tables, the web report's first page, the checklists and the paper.

Every command reads a results folder. With `--published` it reads the published values instead, and needs no run.
Each command imports its modules itself: imports take most of the few seconds that a figure needs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from ..analysis.published import Published
from ..analysis.results import Runs, open_runs
from ..analysis.source import Source, overlaid
from ..config import Report, read_section
from ..config.settings import Labels
from ..errors import UserError, command_line

Place = Annotated[Path, typer.Option()]
Alone = Annotated[bool, typer.Option("--published", help="Read the published values instead of runs.")]
T = TypeVar("T")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def figure(name: str, output: Place, results: Place = Path("results"), published: Alone = False) -> None:
    """Draw figure NAME to OUTPUT.pdf and OUTPUT.png."""
    from .figures import FIGURES
    from .sentences import diverged_cells
    from .style import finish

    source = _source(results, published)
    shown: Source = overlaid(source, _settings(results)) if isinstance(source, Runs) else source
    finish(_known(FIGURES, name)(shown), output, diverged_cells(shown))


@app.command()
def table(name: str, output: Place, results: Place = Path("results"), published: Alone = False) -> None:
    """Write table NAME to OUTPUT.csv, .md and .tex."""
    from .tables import PUBLISHED_TABLES, TABLES, mark, write_table

    source = _source(results, published)
    rows = _known(TABLES, name)(source) if isinstance(source, Runs) else _known(PUBLISHED_TABLES, name)(source)
    write_table(mark(rows, source.diverged), output)


@app.command()
def experiment_figure(name: str, output: Place, results: Place = Path("results")) -> None:
    """Draw the search (NAME "search") or the sweep called NAME to OUTPUT.pdf and OUTPUT.png."""
    from ..analysis.experiments import open_sweep, search_rungs, sweep_settings
    from .figures.experiments import draw_search, draw_sweep
    from .style import finish

    _use_labels(results)
    if name == "search":
        finish(draw_search(search_rungs(results)), output)
    else:
        settings = sweep_settings(results, name)
        finish(draw_sweep(open_sweep(results, name), settings.keys, settings.against), output)


@app.command()
def experiment_table(name: str, output: Place, results: Place = Path("results")) -> None:
    """Write the search (NAME "search") or the sweep called NAME to OUTPUT.csv, .md and .tex, every run to .runs.csv.

    The losses of a sweep's runs on each held-out document go to .documents.csv.
    """
    from ..analysis.experiments import DOCUMENTS, open_sweep, search_rungs, search_table, sweep_settings, sweep_table
    from ..storage.files import write_csv
    from .tables import write_table

    _use_labels(results)
    if name == "search":
        runs, table = search_rungs(results), search_table(results)
    else:
        swept, settings = open_sweep(results, name), sweep_settings(results, name)
        runs, table = swept.runs, sweep_table(swept, settings.keys, settings.against)
        write_csv(output.with_suffix(DOCUMENTS), swept.losses.table)
    write_table(table, output)
    write_csv(output.with_suffix(".runs.csv"), runs)


@app.command()
def predictors(output: Place, results: Place = Path("results")) -> None:
    """Write how each reading goes with the gap to full rank to OUTPUT.csv, and the readings to OUTPUT.cells.csv."""
    from ..analysis.predictors import early_readings, predictive
    from ..storage.files import write_csv

    cells = early_readings(results)
    write_csv(output.with_suffix(".cells.csv"), cells)
    write_csv(output.with_suffix(".csv"), predictive(cells))


@app.command()
def summary(output: Place, results: Place = Path("results")) -> None:
    """Write the outcome on one screen to OUTPUT.txt and OUTPUT.md."""
    from ..storage.files import write_text
    from .summary import outcome
    from .templates import render

    told = outcome(_runs(results))
    for ending in (".txt", ".md"):
        write_text(output.with_suffix(ending), render(f"summary{ending}", told))


@app.command()
def pages(
    output: Place,
    results: Place = Path("results"),
    experiment: Annotated[list[str] | None, typer.Option(help='a sweep, or "search"; repeated')] = None,
) -> None:
    """Write the pages of all figures and tables in RESULTS to the folder OUTPUT."""
    from ..analysis.experiments import sweep_settings
    from ..analysis.published_recipe import shows_published
    from ..storage.files import write_text
    from .captions import captions, experiment_caption
    from .pages import figures_page, tables_page

    runs, names = _runs(results), experiment or []
    texts = captions(runs.cells, shows_published(_settings(results), runs.cells), runs.suite)
    compares = {name: name != "search" and sweep_settings(results, name).against is not None for name in names}
    for kind, make in (("figure", figures_page), ("table", tables_page)):
        of_experiments = {f"experiment_{name}": experiment_caption(name, kind, compares[name]) for name in names}
        write_text(output / f"{kind}s.html", make(results / f"{kind}s", texts, of_experiments))


@app.command()
def explore(output: Place, results: Place = Path("results")) -> None:
    """Write the interactive page of all curves to OUTPUT."""
    from ..storage.files import write_text
    from .explore import page

    write_text(output, page(_runs(results)))


@app.command()
def landing(output: Place, results: Place = Path("results"), published: Alone = False) -> None:
    """Write the first page of the web report, reStructuredText, to OUTPUT."""
    from ..storage.files import write_text
    from .summary import first_page

    write_text(output, first_page(_source(results, published), results / "figures" / "gap_over_training.png"))


@app.command()
def reproducibility(output: Place, results: Place = Path("results")) -> None:
    """Answer checklists of reproducibility from the files in RESULTS, to OUTPUT.md and OUTPUT.html."""
    from ..storage.files import write_text
    from .reproducibility import facts
    from .templates import render

    told = facts(_runs(results))
    for ending in (".md", ".html"):
        write_text(output.with_suffix(ending), render(f"reproducibility{ending}", told))


@app.command()
def paper(
    source: Place,
    output: Place,
    results: Place = Path("results"),
    published: Alone = False,
    experiment: Annotated[list[str] | None, typer.Option(help='a sweep, or "search"; repeated')] = None,
) -> None:
    """Typeset SOURCE with the figures and tables in RESULTS."""
    from .experiments import experiment_sections
    from .paper import published_values, typeset, values

    if published:
        contents = published_values(Published())
    else:
        runs, sections = _runs(results), experiment_sections(results, experiment or [])
        contents = values(runs, _settings(results), sections)
    typeset(source, contents, results / "published" if published else results, output)


@app.command()
def findings(docs: Place = Path("docs")) -> None:
    """Make the figures and the tables of DOCS/findings.md again from DOCS/results, without any run."""
    from ..storage.files import write_text
    from .findings import FIGURES, draw, with_tables
    from .style import finish

    page = docs / "findings.md"
    write_text(page, with_tables(page.read_text(), docs / "results"))
    for name in FIGURES:
        finish(draw(name, docs / "results"), docs / "images" / name)


def _source(results: Path, published: bool) -> Runs | Published:
    return Published() if published else _runs(results)


def _runs(results: Path) -> Runs:
    _use_labels(results)
    return open_runs(results)


def _use_labels(results: Path) -> None:
    from .numbers import use_labels

    use_labels(read_section(Labels, results / "settings" / "labels.yaml").labels)


def _settings(results: Path) -> Report:
    return read_section(Report, results / "settings" / "report.yaml")


def _known(named: Mapping[str, T], name: str) -> T:
    if name not in named:
        raise UserError(f"{name} is not one of {', '.join(named)}")
    return named[name]


if __name__ == "__main__":
    command_line(app)
