"""`python -m relora_study.report`: figures, tables, the web report's first page and the paper.

Every command reads a results folder; with `--published` it takes the released values alone and no run. What a command
does not need it does not import: a figure is drawn in a few seconds, of which imports are most.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from ..config import Report, read_section
from ..errors import UserError, command_line
from .load import Results, open_results

Place = Annotated[Path, typer.Option()]
Alone = Annotated[bool, typer.Option("--published", help="From the released values alone.")]
T = TypeVar("T")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def figure(name: str, output: Place, results: Place = Path("results"), published: Alone = False) -> None:
    """Draw figure NAME to OUTPUT.pdf and OUTPUT.png."""
    from .figures import FIGURES
    from .style import finish

    finish(_known(FIGURES, name)(_open(results, published)), output)


@app.command()
def table(name: str, output: Place, results: Place = Path("results"), published: Alone = False) -> None:
    """Write table NAME to OUTPUT.csv, .md and .tex."""
    from .tables import RELEASED_TABLES, TABLES, write_table

    write_table(_known(RELEASED_TABLES, name)() if published else _known(TABLES, name)(_open(results, False)), output)


@app.command()
def landing(output: Place, results: Place = Path("results"), published: Alone = False) -> None:
    """Write the first page of the web report, reStructuredText, to OUTPUT."""
    from ..files import write_text
    from .landing import page, released_page

    write_text(output, released_page() if published else page(_open(results, False)))


@app.command()
def paper(source: Place, output: Place, results: Place = Path("results"), published: Alone = False) -> None:
    """Typeset SOURCE with the figures and tables in RESULTS."""
    from .paper import released_values, typeset, values

    title = "" if published else read_section(Report, results / "settings" / "report.yaml").title
    found = released_values() if published else values(_open(results, False), title)
    typeset(source, found, results / "published" if published else results, output)


def _open(results: Path, published: bool) -> Results:
    return Results(results, {}, "only") if published else open_results(results)


def _known(named: Mapping[str, T], name: str) -> T:
    if name not in named:
        raise UserError(f"{name} is not one of {', '.join(named)}")
    return named[name]


if __name__ == "__main__":
    command_line(app)
