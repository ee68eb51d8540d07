"""`python -m relora_study.search`: who goes on in a search, and the settings that it chose.

A search halves successively (Jamieson and Talwalkar 2016): it trains all candidates a little, the better ones longer.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from .config import Cell, read_section
from .config.settings import SearchSettings, as_yaml
from .config.variants import with_search_result
from .errors import UserError, command_line
from .storage.contracts import RungResult, read_contract
from .storage.files import read_csv, write_csv, write_text

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Settings = Annotated[Path, typer.Option(help="the search, tuning/SIZE-METHOD/settings.yaml")]
Output = Annotated[Path, typer.Option(help="the file to write")]


def promoted(losses: Mapping[str, float], count: int) -> list[str]:
    """The ``count`` candidates of the lowest loss, best first; of equal ones the first by name.

    A loss that is not finite, of a run that diverged, comes behind every other.
    """
    order = sorted(losses, key=lambda name: (not math.isfinite(losses[name]), losses[name], name))
    return order[:count]


@app.command()
def select(settings: Settings, rung: Annotated[int, typer.Option(min=0)], output: Output, rungs: list[Path]) -> None:
    """List what the candidates left at a rung with each seed, the best first, with 1 in `promoted` if they go on.

    The best has the lowest mean over its seeds. One that diverged with any seed has no mean, and comes behind the rest.
    """
    search = read_section(SearchSettings, settings)
    records = [read_contract(RungResult, path, f"{path} cannot be read; delete it") for path in rungs]
    table = pd.DataFrame([record.model_dump() for record in records if not record.dropped]).astype({"loss": float})
    losses = table.groupby("candidate").loss
    means = {str(name): float(one.mean(skipna=False)) for name, one in losses}
    last = rung + 1 == len(search.rungs)
    order = promoted(means, len(means))
    going_on = order[: 1 if last else search.survivors[rung + 1]]
    table["mean_loss"] = table.candidate.map(means)
    table["promoted"] = table.candidate.isin(going_on).astype(int)
    table = table.astype({"diverged": int}).drop(columns="dropped").rename(columns={"step": "trained"})
    write_csv(output, table.sort_values("candidate", key=lambda names: names.map(order.index), kind="stable"))


@app.command()
def settle(
    base: Annotated[Path, typer.Option(help="the cell's settings before the search")],
    settings: Settings,
    selection: Annotated[Path, typer.Option(help="the last rung's CSV, the best candidate first")],
    output: Output,
) -> None:
    """Write the settings of a cell of the study: its own, with the keys of the best candidate changed."""
    best = read_csv(selection).iloc[0]
    if pd.isna(best.mean_loss):
        raise UserError(f"{selection}: every candidate diverged, with one seed at least; widen tuning.space")
    point = read_section(SearchSettings, settings).candidates[str(best.candidate)]
    write_text(output, as_yaml(with_search_result(read_section(Cell, base), point)))


if __name__ == "__main__":
    command_line(app)
