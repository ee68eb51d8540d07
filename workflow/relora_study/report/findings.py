"""The figures and tables of docs/findings.md, made from the small tables in docs/results that presets left."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..analysis.differences import in_columns
from ..analysis.effects import Effect
from ..analysis.experiments import DOCUMENTS, Swept, at_budgets, changes, responses, sweep_table
from ..analysis.losses import SHARED, Losses
from ..analysis.predictors import predictive
from ..analysis.published_recipe import PARAMETERS, TOKENS
from ..analysis.scaling import Law, expected_gap
from ..config.measuring import MARGIN
from .escape import markdown
from .figures.experiments import draw_changes, draw_gap_by_tokens, draw_reading
from .numbers import readable, setting

MARKED = re.compile(
    r"(<!-- table (\w+) of (\w+(?: and \w+)*): made by `make findings` -->\n).*?(?=<!-- end -->)", re.DOTALL
)
NUMBER = re.compile(r"(\d[\d.]*)<!-- (\w+) of (\w+(?: and \w+)*): (\w+) of ([\w.]+)(?: at (\w+))? -->")
REACH = "adapters.gradient_share"
WORDS = (
    "size",
    "method",
    "compared with",
    "chance",
    "yardstick",
    "edge",
    "reading",
)  # columns that are set to the left


def _losses(swept: Swept, against: str) -> pd.DataFrame:
    """The mean loss of each method of a sweep at each size, and its difference to what it is compared with."""
    return _without_idle(sweep_table(swept, [], against), "p_holm")


def _at_one_size(swept: Swept, against: str) -> pd.DataFrame:
    """As :func:`_losses`, of a sweep at one size that compares every method with the same one."""
    return _losses(swept, against).drop(columns=["size", "compared_with"])


def _without_idle(rows: pd.DataFrame, *dropped: str) -> pd.DataFrame:
    """``rows`` without the columns ``dropped``, and without those that count what diverged, where nothing did."""
    return rows.drop(columns=[*dropped, *([] if rows.diverged.any() else ["diverged", "seeds_paired"])])


def _chosen(rows: pd.DataFrame) -> pd.DataFrame:
    """What each search chose: a rate, the ratio of the matrices' or adapters' rate to it, and the edges it lies at."""
    best = rows[rows.outcome == "chosen"]
    edge = best.edge.astype(object).fillna("")
    told = best.assign(ratio=_ratio(best), edge=edge)
    return told.filter(
        items=["size", "method", "learning_rate", "ratio", "loss", "edge"]
    )  # not every search has a rate


def _ratio(rows: pd.DataFrame) -> pd.Series:
    """The ratio of the matrices' or adapters' rate that each of ``rows`` varies."""
    return rows.filter(like="rate_ratios.").bfill(axis=1).iloc[:, 0]


def _groups(swept: Swept) -> pd.DataFrame:
    """The mean loss of each method, and its difference to full rank with one rate and to full rank with two."""
    one, two = sweep_table(swept, [], "full"), changes(swept, "full_two_rates")
    losses = one[["method", "seeds", "loss", "loss_low", "loss_high"]]
    named = {"over_one_rate": one, "over_two_rates": two}
    of_one, of_two = (_named(name, rows).set_index("method") for name, rows in named.items())
    return losses.join(of_one, on="method").join(of_two, on="method").fillna({"verdict_over_two_rates": ""})


def _gap_change(swept: Swept) -> pd.DataFrame:
    """What a second rate changes in the gap of ReLoRA repaired to full rank: of one rate's gap less of two rates'."""
    cells = swept.runs.pivot(index="seed", columns="method", values="cell")
    nats = {name: np.stack([swept.losses.nats[cell] for cell in cells[name]]) for name in cells}
    gaps = {
        "one_rate": nats["relora_repaired"] - nats["full"],
        "two_rates": nats["repaired_two_rates"] - nats["full_two_rates"],
    }
    gaps["change"] = gaps["one_rate"] - gaps["two_rates"]
    effects = {name: Effect.of(values, swept.losses.tokens) for name, values in gaps.items()}
    columns = {key: value for name, effect in effects.items() for key, value in in_columns(name, effect).items()}
    return pd.DataFrame([{"method": "relora_repaired", "seeds": len(cells), **columns}])


def _climbs(swept: Swept) -> pd.DataFrame:
    """The difference of each method to full rank with a climb of three steps after each reset, and of thirty."""
    climb = swept.runs.rewarmup_steps.fillna(3).astype(int).astype(str)
    runs = swept.runs.assign(size=climb)[swept.runs.method.isin(swept.runs.method[climb == "30"])]
    full = swept.runs[swept.runs.method == "full"]
    both = changes(swept._replace(runs=pd.concat([runs, *(full.assign(size=steps) for steps in ("3", "30"))])), "full")
    three, thirty = (_named(f"after_{steps}", both[both["size"] == steps]) for steps in ("3", "30"))
    return three.join(thirty.set_index("method"), on="method")


def _named(name: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The method, the difference and the verdict of ``rows``, the last two under a name of their own."""
    columns = {f"difference{end}": f"{name}{end}" for end in ("", "_low", "_high")} | {"verdict": f"verdict_{name}"}
    return rows.rename(columns=columns)[["method", *columns.values()]]


def _predictors(cells: pd.DataFrame) -> pd.DataFrame:
    """How each reading goes with the gap to full rank over the cells of several studies: the ten that go closest."""
    found = predictive(_by_study(cells))
    return found.sort_values("correlation", key=abs, ascending=False, ignore_index=True).head(10)


def _reach(cells: pd.DataFrame) -> pd.DataFrame:
    """Of each method of the study `causes`: its gap, the share of the gradient in reach, and the rank of what moved."""
    moved = "cumulative_update.effective_rank"
    chosen = cells[cells.study == "causes"]
    means = chosen.groupby("variant", sort=False)[["seed", "gap", REACH, moved]].agg(
        {"seed": "size", "gap": "mean", REACH: "mean", moved: "mean"}
    )
    named = {"variant": "method", "seed": "seeds", REACH: "in_reach", moved: "rank_of_the_net_update"}
    return means.reset_index().rename(columns=named).sort_values("gap", ignore_index=True)


def _by_study(cells: pd.DataFrame) -> pd.DataFrame:
    return cells.assign(stratum=cells.study + ": " + cells.stratum)


def _predictors_within(cells: pd.DataFrame) -> pd.DataFrame:
    """As :func:`_predictors`, of methods whose adapters reach a part of the gradient: not none of it, and not all."""
    return _predictors(cells[cells[REACH].between(0.01, 0.99)])


def _growth(swept: Swept) -> pd.DataFrame:
    """What each doubling of the tokens adds to the difference of a method to full rank: a line fitted to every seed."""
    cells = swept.runs.pivot(index=["method", "seed"], columns="tokens", values="cell").dropna()
    doublings = np.log2(cells.columns.to_numpy(float))
    weights = (doublings - doublings.mean()) / ((doublings - doublings.mean()) ** 2).sum()
    nats = np.array([[swept.losses.nats[cell] for cell in lengths] for lengths in cells.values])
    slopes = dict(zip(cells.index, np.einsum("l,cld->cd", weights, nats), strict=True))
    rows = []
    for method in cells.index.unique("method").drop("full"):
        seeds = cells.loc[method].index
        effect = Effect.of(np.stack([slopes[method, s] - slopes["full", s] for s in seeds]), swept.losses.tokens)
        rows.append({"method": method, "seeds": len(seeds), **in_columns("per_doubling", effect)})
    return pd.DataFrame(rows)


def _law(swept: Swept) -> pd.DataFrame:
    """The gap at the paper's sizes by laws fitted to the cells of each method, and to full rank's of their seeds."""
    cells = swept.runs.pivot(index=["size", "tokens", "seed"], columns="method", values="loss")
    full = swept.runs[swept.runs.method == "full"].set_index(["size", "tokens", "seed"])
    parameters = (full.index.get_level_values("tokens") / full.tokens_per_parameter).round()
    rows = []
    for method in cells.columns.drop("full"):
        both = cells[["full", method]].dropna()
        sizes, tokens = parameters[both.index].to_numpy(), both.index.get_level_values("tokens").to_numpy(float)
        if len({*zip(sizes, tokens, strict=True)}) > len(Law._fields):
            row = {"method": method, "cells": len(both)}
            for name, papers in PARAMETERS.items():
                gap = expected_gap(sizes, tokens, both.to_numpy(), (papers, TOKENS))
                row |= {f"gap_at_{name}{end}": value for end, value in zip(("", "_low", "_high"), gap, strict=True)}
            rows.append(row)
    return pd.DataFrame(rows)


def _counted(rows: pd.DataFrame) -> pd.DataFrame:
    """The loss of each yardstick on each number of counted tokens, a mean over the diets of the seeds."""
    means = rows.groupby(["tokens", "yardstick"], sort=False).agg(seeds=("seed", "size"), loss=("loss", "mean"))
    return means.reset_index()[["yardstick", "seeds", "tokens", "loss"]]


def _by_tokens(swept: Swept) -> pd.DataFrame:
    """The mean loss of each method at each number of tokens, and its difference to full rank on as many."""
    return _of_tokens(_without_idle(sweep_table(at_budgets(swept), [], "full"), "compared_with"))


def _by_width(swept: Swept) -> pd.DataFrame:
    """As :func:`_by_tokens`, of several widths, each with the tokens a parameter that its full rank saw, rounded."""
    runs = swept.runs
    fed = runs[runs.method == "full"].groupby("tokens").tokens_per_parameter.first().round().astype(int)
    told = runs.tokens.map(fed).map(lambda number: f"_on_{number}_token{'s' * (number > 1)}_a_parameter")
    groups = runs["size"].replace("tiny", "width_48") + told  # by its width, as the others
    rows = _without_idle(sweep_table(swept._replace(runs=runs.assign(size=groups)), [], "full"), "compared_with")
    return rows.drop(columns="tokens_per_parameter").sort_values("size", kind="stable", ignore_index=True)


def _resets(swept: Swept) -> pd.DataFrame:
    """The repaired ReLoRA less LoRA at each number of tokens: what merges, restarts and the dips about them change."""
    pair = swept._replace(runs=swept.runs[swept.runs.method.isin(["lora", "relora_repaired"])])
    return _of_tokens(changes(at_budgets(pair), "lora")).drop(columns="compared_with")


def _rates_tried(swept: Swept) -> pd.DataFrame:
    """The loss of each method and number of tokens: a column a rate, with stars about the lowest."""
    rows = _of_tokens(responses(at_budgets(swept), ["learning_rate"]))
    lowest = rows.groupby(["tokens", "method"]).loss.transform("min") == rows.loss
    told = rows.loss.map("{:.3f}".format).where(~lowest, rows.loss.map("*{:.3f}*".format))
    named = rows.assign(told=told, rate=rows.learning_rate.map(setting))
    wide = named.pivot(index=["tokens", "method"], columns="rate", values="told")
    return rows[["tokens", "method"]].drop_duplicates().join(wide, on=["tokens", "method"]).fillna("")


def _of_tokens(rows: pd.DataFrame) -> pd.DataFrame:
    """``rows`` of a sweep at budgets, with the tokens by their name."""
    return rows.rename(columns={"size": "tokens"}).astype({"tokens": int})


FIGURES: dict[str, Callable[[Path], Figure]] = {
    "budgets": lambda folder: draw_gap_by_tokens(swept(("budgets", "budgets_frozen", "longest"), folder), "full"),
    "groups": lambda folder: draw_changes(swept(("groups",), folder), "full"),
    "implementations": lambda folder: draw_changes(swept(("implementations",), folder), "full"),
    "readings": lambda folder: draw_reading(
        _by_study(_read("readings", folder)), REACH, "share of the gradient that the adapters can follow"
    ),
}
OF_SWEEPS = (
    "losses",
    "groups",
    "climbs",
    "gap_change",
    "law",
    "over_full_rank",
    "rhythm",
    "by_tokens",
    "by_width",
    "growth",
    "rates_tried",
    "resets",
)
TABLES: dict[str, Callable[..., pd.DataFrame]] = {  # of the sweeps in docs/results, or of other tables there
    "by_tokens": _by_tokens,
    "by_width": _by_width,
    "climbs": _climbs,
    "counted": _counted,
    "groups": _groups,
    "gap_change": _gap_change,
    "over_full_rank": lambda swept: _at_one_size(swept, "full"),
    "rhythm": lambda swept: _at_one_size(swept, "full_steady"),
    "growth": _growth,
    "law": _law,
    "rates_tried": _rates_tried,
    "resets": _resets,
    "chosen": _chosen,
    "predictors": _predictors,
    "predictors_within": _predictors_within,
    "reach": _reach,
    "differences": lambda rows: rows[rows.measure == "held_out_loss"].drop(columns=["measure", "seeds", "diverged"]),
    "whole": lambda rows: rows,
}


def draw(name: str, folder: Path) -> Figure:
    """The figure ``name`` from its tables in ``folder``."""
    return FIGURES[name](folder)


def _read(name: str, folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.csv")


def swept(names: Iterable[str], folder: Path) -> Swept:
    """The sweeps ``names`` as one. Without losses by document, as of earlier runs, their chance is in no interval."""
    runs = pd.concat([_read(name, folder) for name in names], ignore_index=True)
    places = [folder / f"{name}{DOCUMENTS}" for name in names]
    if not all(place.exists() for place in places):
        return Swept(runs, Losses.of_means(dict(zip(runs.cell, runs.loss, strict=True))), MARGIN)
    first, *others = (pd.read_csv(place) for place in places)
    return Swept(runs, Losses.of_table(pd.concat([first, *(o.drop(columns=SHARED) for o in others)], axis=1)), MARGIN)


def with_tables(page: str, folder: Path) -> str:
    """``page`` with each table between its marks made again from ``folder``."""
    return MARKED.sub(lambda mark: mark[1] + _table(mark[2], mark[3].split(" and "), folder), page)


def numbers(page: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Each marked number of ``page`` as it stands there, and as its table gives it, without sign and to its decimals.

    A mark behind a number names table, column and method, and the size or the tokens where there are several:
    `0.11<!-- gaps of tuned: gap of relora at tiny -->`.
    """
    for said, kind, names, column, method, size in NUMBER.findall(page):
        rows = _rows(kind, names.split(" and "), folder)
        named = rows.rename(columns=dict.fromkeys(["yardstick", "reading"], "method"))
        place = next(named[key] for key in ("size", "tokens", "method") if key in named).astype(str)
        chosen = named[(named.method == method) & (not size or place == size)]
        yield said, f"{abs(float(chosen[column].item())):.{len(said.partition('.')[2])}f}"


def _rows(kind: str, names: list[str], folder: Path) -> pd.DataFrame:
    table = TABLES[kind]
    return table(swept(names, folder)) if kind in OF_SWEEPS else table(*(_read(name, folder) for name in names))


def _table(kind: str, names: list[str], folder: Path) -> str:
    words = readable(_rows(kind, names, folder)).map(markdown)
    sides = ["left" if column in WORDS or column.startswith("verdict") else "right" for column in words]
    return str(words.to_markdown(index=False, disable_numparse=True, colalign=sides)) + "\n"
