"""Whether the rank of adapters grows from cycle to cycle, as the published curves do, or starts again."""

from functools import cache

import pandas as pd

from .published import Published
from .published_recipe import LABELS, RANK, WIDTHS, Trained
from .source import Source, rank_ceiling, select, while_adapted

COLUMNS = ["cell", "method", "published_size", "cycles", "distance", "correlation", "first", "published_first"]
COLUMNS += ["growth", "published_growth"]
SHARES = ["cell", "size", "method", "seed", "near", "component", "cycle", "share"]


def nearest_size(cell: Trained) -> str:
    """The paper's size whose ratio of rank to width is nearest to the ratio of ``cell``."""
    share = cell.method.rank / cell.size.d_model
    return min(WIDTHS, key=lambda size: abs(RANK / WIDTHS[size] - share))


def adapter_shares(source: Source) -> pd.DataFrame:
    """PER of the adapters, as the paper reads it, over the rank ceiling: a row for each cell, component and cycle.

    Columns cell, size, method, seed, near (the published size to compare with), component, cycle, share.
    """
    parts = [pd.DataFrame(columns=SHARES)]
    rows = select(source.labelled(), "updates", "per")
    by_cell = dict(list(rows[rows.step > 0].groupby("cell")))
    for name, cell in source.cells.items():
        period = cell.method.reset_period
        if not cell.method.restarts or name not in by_cell:
            continue
        per = while_adapted(by_cell[name], cell.method)
        per = per[per.step % period == 0]
        if per.empty:  # as in a training that ends soon after a full-rank start
            continue
        per = per.groupby(["cell", "size", "method", "seed", "component", "step"]).value.mean().reset_index()
        ceiling = per.component.map(lambda component, cell=cell: rank_ceiling(cell, component))
        parts.append(per.assign(near=nearest_size(cell), cycle=per.step // period, share=per.value / ceiling)[SHARES])
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


@cache
def published_shares() -> pd.DataFrame:
    """The shares of the published adapters: columns size, component, cycle, share."""
    shares = adapter_shares(Published())
    return shares[shares.method == LABELS["relora"]][["size", "component", "cycle", "share"]]


def adapter_pattern(source: Source) -> pd.DataFrame:
    """Each cell's adapters against the published adapters, by their shares of the rank ceiling.

    ``distance`` and ``correlation`` use the cycles that both curves have. ``distance`` is the root mean square
    difference of the shares over V, O, W2 and cycles. ``correlation`` is Pearson's over cycles, averaged over V, O and
    W2: it compares shapes, not levels. ``first`` and ``published_first`` are the mean shares in the first cycle.
    ``growth`` and ``published_growth`` are the share of V in the last cycle that both have, over the share of V in the
    first. A full-rank start has no adapters in the first cycle, and so neither ``first`` nor ``growth``.
    """
    both = adapter_shares(source).merge(
        published_shares(),
        left_on=["near", "component", "cycle"],
        right_on=["size", "component", "cycle"],
        suffixes=("", "_published"),
    )
    rows = []
    for (cell, method, near), shares in both.groupby(["cell", "method", "near"], sort=False):
        v = shares[shares.component == "v"].sort_values("cycle")
        curves = published_shares()
        shared = (curves["size"] == near) & (curves.cycle <= shares.cycle.max())
        published = curves[shared & curves.component.isin(shares.component)]
        rows.append(
            {
                "cell": cell,
                "method": method,
                "published_size": near,
                "cycles": v.cycle.nunique(),
                "distance": float((shares.share - shares.share_published).pow(2).mean() ** 0.5),
                "correlation": _correlation(shares),
                "first": shares.share[shares.cycle == 1].mean(),
                "published_first": published.share[published.cycle == 1].mean(),
                "growth": _growth(v),
                "published_growth": _growth(published[published.component == "v"].sort_values("cycle")),
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def _growth(v: pd.DataFrame) -> float:
    """The last share of V over the share in the first cycle; NaN where V has no adapters there."""
    return float(v.share.iloc[-1] / v.share.iloc[0]) if (v.cycle == 1).any() else float("nan")


def _correlation(shares: pd.DataFrame) -> float:
    """Pearson's correlation over cycles, averaged over the components whose curve varies; NaN where none varies."""
    varied = [part for _, part in shares.groupby("component") if part.share.nunique() > 1]
    return float(pd.Series([part.share.corr(part.share_published) for part in varied], dtype=float).mean())
