"""`python -m relora_study.experiments`: who goes on in a search, and the settings that it chose."""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from ..config import Cell, read_section
from ..config.settings import SearchSettings, as_yaml
from ..config.variants import settled
from ..errors import UserError, command_line
from ..storage.contracts import read_contract
from ..storage.files import read_csv, write_csv, write_text
from ..storage.rung import Rung
from .halving import promoted

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Settings = Annotated[Path, typer.Option(help="the search, tuning/SIZE-METHOD/settings.yaml")]
Output = Annotated[Path, typer.Option(help="the file to write")]


@app.command()
def select(settings: Settings, rung: Annotated[int, typer.Option(min=0)], output: Output, rungs: list[Path]) -> None:
    """List what the candidates left at a rung, the best first, with 1 in `promoted` for those that go on."""
    search = read_section(SearchSettings, settings)
    records = {path.parent.name: read_contract(Rung, path, f"{path} cannot be read; delete it") for path in rungs}
    alive = {name: record for name, record in records.items() if not record.dropped}
    losses = {name: float("nan") if record.loss is None else record.loss for name, record in alive.items()}
    last = rung + 1 == len(search.rungs)
    going_on = promoted(losses, 1 if last else search.survivors[rung + 1])
    order = promoted(losses, len(losses))
    table = pd.DataFrame({"candidate": order, "loss": [losses[name] for name in order]})
    table["diverged"] = [int(alive[name].diverged) for name in order]
    table["promoted"] = [int(name in going_on) for name in order]
    write_csv(output, table)


@app.command()
def settle(
    base: Annotated[Path, typer.Option(help="the cell's settings before the search")],
    settings: Settings,
    selection: Annotated[Path, typer.Option(help="the last rung's CSV, the best candidate first")],
    output: Output,
) -> None:
    """Write the settings of a cell of the study: its own, with the keys of the best candidate changed."""
    best = read_csv(selection).iloc[0]
    if pd.isna(best.loss):
        raise UserError(f"{selection}: every candidate diverged; widen tuning.space")
    point = read_section(SearchSettings, settings).candidates[str(best.candidate)]
    write_text(output, as_yaml(settled(read_section(Cell, base), point)))


if __name__ == "__main__":
    command_line(app)
