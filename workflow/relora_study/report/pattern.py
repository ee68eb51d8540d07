"""Do adapters grow from cycle to cycle, as the published ones do, or start again?"""

import pandas as pd

from ..config import Cell
from .load import Results, published_readings, rank_ceiling
from .published import adapter_per
from .shapes import RANK, WIDTHS

COLUMNS = ["cell", "method", "published_size", "cycles", "distance", "correlation", "first", "published_first"]
COLUMNS += ["growth", "published_growth"]


def nearest_size(cell: Cell) -> str:
    """The paper's size whose rank is nearest to the cell's, as a share of the width."""
    share = cell.method.rank / cell.size.d_model
    return min(WIDTHS, key=lambda size: abs(RANK / WIDTHS[size] - share))


def adapter_shares(results: Results) -> pd.DataFrame:
    """PER of the adapters over r / min(m, n), a row a cell, component and cycle, as the paper reads it.

    Columns cell, size, method, seed, near (the published size to compare with), component, cycle, share.
    """
    columns = ["cell", "size", "method", "seed", "near", "component", "cycle", "share"]
    parts = [pd.DataFrame(columns=columns)]
    rows = published_readings(results, "updates", "per")
    for name, cell in results.cells.items():
        period = cell.method.reset_period
        own = rows[(rows.cell == name) & (rows.step > 0)]
        if not cell.method.rank or not period or (own := own[own.step % period == 0]).empty:
            continue
        own = own.groupby(["cell", "size", "method", "seed", "component", "step"]).value.mean().reset_index()
        ceiling = own.component.map(lambda component, cell=cell: rank_ceiling(cell, component))
        parts.append(own.assign(near=nearest_size(cell), cycle=own.step // period, share=own.value / ceiling)[columns])
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


def adapter_pattern(results: Results) -> pd.DataFrame:
    """How far each cell's adapters are from the published ones.

    ``distance`` is the root mean square, over V, O, W2 and the cycles that both have, of the difference between the
    two shares of the ceiling; ``growth`` and ``published_growth`` are V's share in the last cycle that both have over
    that in the first. ``correlation`` is Pearson's, over those cycles, averaged over V, O and W2: the shape without the
    level. ``first`` and ``published_first`` are the mean shares of the first cycle.
    """
    both = adapter_shares(results).merge(
        adapter_per(),
        left_on=["near", "component", "cycle"],
        right_on=["size", "component", "cycle"],
        suffixes=("", "_published"),
    )
    rows = []
    for (cell, method, near), own in both.groupby(["cell", "method", "near"], sort=False):
        v = own[own.component == "v"].sort_values("cycle")
        rows.append(
            {
                "cell": cell,
                "method": method,
                "published_size": near,
                "cycles": v.cycle.nunique(),
                "distance": float((own.share - own.share_published).pow(2).mean() ** 0.5),
                "correlation": _correlation(own),
                "first": own.share[own.cycle == own.cycle.min()].mean(),
                "published_first": own.share_published[own.cycle == own.cycle.min()].mean(),
                "growth": _growth(v.share),
                "published_growth": _growth(v.share_published),
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def _growth(shares: pd.Series) -> float:
    """The last over the first; NaN where V has no adapters."""
    return float(shares.iloc[-1] / shares.iloc[0]) if len(shares) else float("nan")


def _correlation(own: pd.DataFrame) -> float:
    """Mean over components of Pearson's correlation over cycles; NaN where a curve is level throughout."""
    varied = [part for _, part in own.groupby("component") if part.share.nunique() > 1]
    return float(pd.Series([part.share.corr(part.share_published) for part in varied], dtype=float).mean())
