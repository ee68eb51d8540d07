"""`python -m relora_study.report`: figures, tables and the paper."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..config import Report, read_section
from ..errors import command_line
from .figures import FIGURES
from .load import Results, open_results
from .paper import typeset
from .published import published_audit
from .style import finish
from .tables import TABLES, write_table

FigureName = StrEnum("FigureName", list(FIGURES))  # type: ignore[misc]
TableName = StrEnum("TableName", list(TABLES))  # type: ignore[misc]
Place = Annotated[Path, typer.Option()]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def figure(name: FigureName, study: Place, cells: Place, settings: Place, output: Place) -> None:
    """Draw figure NAME to OUTPUT.pdf and OUTPUT.png."""
    finish(FIGURES[name.value](open_results(study, cells, settings)), output)


@app.command()
def published_figure(name: FigureName, output: Place) -> None:
    """Draw figure NAME from the released curves alone."""
    finish(FIGURES[name.value](Results(output, {}, "only")), output)


@app.command()
def published_audit_table(output: Place) -> None:
    """Write what the released curves show by themselves to OUTPUT.csv, .md and .tex."""
    write_table(published_audit(), output)


@app.command()
def table(name: TableName, study: Place, cells: Place, settings: Place, output: Place) -> None:
    """Write table NAME to OUTPUT.csv, .md and .tex."""
    write_table(TABLES[name.value](open_results(study, cells, settings)), output)


@app.command()
def paper(settings: Place, study: Place, source: Place, results: Place, output: Place) -> None:
    """Typeset SOURCE with the figures and tables in RESULTS."""
    title = read_section(Report, settings).title
    typeset(source, open_results(study, results / "cells", settings), results, title, output)


if __name__ == "__main__":
    command_line(app)
