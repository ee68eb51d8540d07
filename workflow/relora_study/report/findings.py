"""The figures and tables of docs/findings.md, made from the small tables in docs/results that presets left."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..analysis.differences import fitted_trend, in_columns, mean_gaps
from ..analysis.effects import Effect
from ..analysis.experiments import DOCUMENTS, Swept, at_budgets, changes, responses, sweep_table
from ..analysis.losses import SHARED, Losses
from ..analysis.published import FOLDER as PUBLISHED
from ..config.experiments import PREVIOUS
from ..config.measuring import MARGIN
from .escape import markdown
from .figures.experiments import draw_changes, draw_costs, draw_gap_by_tokens, draw_response, draw_search
from .figures.gaps import draw_gaps
from .numbers import method_label, readable, setting

CONTROL = "full_slow_targets"
RANK_KEYS = ["rank", "reset_period", "learning_rate"]
MARKED = re.compile(
    r"(<!-- table (\w+) of (\w+(?: and \w+)*): made by `make findings` -->\n).*?(?=<!-- end -->)", re.DOTALL
)
NUMBER = re.compile(r"(\d[\d.]*)<!-- (\w+) of (\w+(?: and \w+)*): (\w+) of (\w+)(?: at (\w+))? -->")
WORDS = (
    "size",
    "method",
    "compared with",
    "claim",
    "verdict",
    "verdict one",
    "verdict two",
    "chance",
    "yardstick",
    "edge",
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


def _accumulation(swept: Swept) -> pd.DataFrame:
    """The mean loss and peak memory by method and micro-batch; the trainings shared a machine, so not their times."""
    return responses(swept, ["micro_batch_size"]).drop(columns=["size", "verdict", "diverged", "minutes"])


def _at_its_rate(swept: Swept) -> pd.DataFrame:
    """The lowest mean loss over the tried rates of each rank and reset period, and whether it is the lowest of all."""
    table = responses(swept, RANK_KEYS)
    lowest = table.loc[table.groupby(["rank", "reset_period"]).loss.idxmin()]
    return lowest[[*RANK_KEYS, "seeds", "loss", "loss_low", "loss_high", "verdict"]]


def _alphas(swept: Swept) -> pd.DataFrame:
    """The mean loss of each rank and alpha, at one rate."""
    table = responses(swept, ["rank", "alpha"]).sort_values(["rank", "alpha"])
    columns = ["rank", "alpha", "alpha_over_rank", "seeds", "loss", "loss_low", "loss_high"]
    return table.assign(alpha_over_rank=table.alpha / table["rank"])[columns]


def _beside_control(rows: pd.DataFrame) -> pd.DataFrame:
    """The mean difference of each method to full rank with slow targets, by width."""
    others, control = rows[rows.method != CONTROL], rows[rows.method == CONTROL]
    pairs = others.merge(control[["size", "seed", "gap"]], on=["size", "seed"], suffixes=("", "_of_control"))
    means = mean_gaps(pairs.assign(gap=pairs.gap - pairs.gap_of_control))
    return means.rename(columns=lambda name: name.replace("gap", "difference"))


def _with_more_tokens(longer: pd.DataFrame, tuned: pd.DataFrame) -> pd.DataFrame:
    """The change of each method's mean gap from the ``tuned`` comparison to the ``longer`` trainings, by width."""
    pairs = longer.merge(tuned, on=["size", "d_model", "method", "seed"], suffixes=("", "_tuned"))
    means = mean_gaps(pairs.assign(gap=pairs.gap - pairs.gap_tuned))
    return means.rename(columns=lambda name: name.replace("gap", "change"))


def _beside_published(swept: Swept) -> pd.DataFrame:
    """The gap to full rank of each method of ReLoRA's own ablation, beside the published one: logs of perplexities."""
    ours = changes(swept, "full")[["size", "method", "difference", "difference_low", "difference_high"]]
    perplexity = pd.read_csv(PUBLISHED / "relora_ablation.csv").set_index("method").perplexity
    published = ours.method.map(np.log(perplexity / perplexity["full"]))
    return ours.assign(published_perplexity=ours.method.map(perplexity), published_difference=published)


def _rates(rungs: pd.DataFrame) -> pd.DataFrame:
    """The learning rate that each search chose: a row a size, a column a method."""
    chosen = rungs[rungs.outcome == "chosen"].drop_duplicates(["size", "method"])
    rates = chosen.assign(rate=chosen.candidate.str.rpartition("=")[2].astype(float).map(setting))
    table = rates.pivot(index="size", columns="method", values="rate").sort_index(key=lambda sizes: sizes.str.len())
    methods = rungs.method.drop_duplicates()
    return table[methods].rename(columns=method_label).reset_index()


def _chosen(rows: pd.DataFrame) -> pd.DataFrame:
    """What each search chose: a rate, the ratio of the matrices' or adapters' rate to it, and the edges it lies at."""
    best = rows[rows.outcome == "chosen"]
    edge = best.edge.astype(object).fillna("")
    return best.assign(ratio=_ratio(best), edge=edge)[["size", "method", "learning_rate", "ratio", "loss", "edge"]]


def _ratio(rows: pd.DataFrame) -> pd.Series:
    """The ratio of the matrices' or adapters' rate that each of ``rows`` varies."""
    return rows.filter(like="rate_ratios.").bfill(axis=1).iloc[:, 0]


def _widths(swept: Swept) -> pd.DataFrame:
    """The loss of each rank at the best of its ratios, one seed, and its difference to full rank at its best."""
    runs = swept.runs.assign(ratio=_ratio(swept.runs)).fillna({"rank": 0}).astype({"rank": int})
    best = runs.loc[runs.groupby("rank").loss.idxmin()]
    full = best.cell[best["rank"] == 0].item()
    found = [in_columns("difference", swept.losses.difference([(cell, full)])) for cell in best.cell]
    told = best[["method", "rank", "ratio", "seed", "loss"]].assign(**pd.DataFrame(found, index=best.index))
    return told[told["rank"] > 0]


def _groups(swept: Swept) -> pd.DataFrame:
    """The mean loss of each method, and its difference to full rank with one rate and to full rank with two."""
    one, two = sweep_table(swept, [], "full"), changes(swept, "full_two_rates").set_index("method")
    named = {f"difference{end}": f"over_two_rates{end}" for end in ("", "_low", "_high")} | {"verdict": "verdict_two"}
    both = one.join(two.rename(columns=named)[list(named.values())], on="method").fillna({"verdict_two": ""})
    renamed = {f"difference{end}": f"over_one_rate{end}" for end in ("", "_low", "_high")} | {"verdict": "verdict_one"}
    columns = ["size", "diverged", "compared_with", "seeds_paired", "chance", "p_holm"]
    return both.rename(columns=renamed).drop(columns=columns)


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


def _counted(rows: pd.DataFrame) -> pd.DataFrame:
    """The loss of each yardstick on each number of counted tokens, a mean over the diets of the seeds."""
    means = rows.groupby(["tokens", "yardstick"], sort=False).agg(seeds=("seed", "size"), loss=("loss", "mean"))
    return means.reset_index()[["yardstick", "seeds", "tokens", "loss"]]


def _by_tokens(swept: Swept) -> pd.DataFrame:
    """The mean loss of each method at each number of tokens, and its difference to full rank on as many."""
    return _of_tokens(_without_idle(sweep_table(at_budgets(swept), [], "full"), "compared_with"))


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


# A figure is drawn from the table of its name, or from those of several sweeps.
SWEEPS = {
    "alone": ("alone", "alone_small"),
    "budgets": ("budgets", "budgets_frozen", "longest"),
    "ladder": ("ladder", "ladder_small"),
}
FIGURES: dict[str, Callable[[Any], Figure]] = {
    "alone": lambda swept: draw_changes(swept, "relora_zero2"),
    "budgets": lambda swept: draw_gap_by_tokens(swept, "full"),
    "groups": lambda swept: draw_changes(swept, "full"),
    "implementations": lambda swept: draw_changes(swept, "full"),
    "ladder": lambda swept: draw_changes(swept, PREVIOUS),
    "methods": draw_costs,
    "ranks": lambda swept: draw_response(swept, RANK_KEYS),
    "tuned_gaps": lambda rows: draw_gaps(rows, ["full", *rows.method.unique()], "full"),
    "tuned_search": draw_search,
}
OF_SWEEPS = [
    *("losses", "alone", "beside_published", "accumulation", "alphas", "groups", "gap_change"),
    *("implementations", "ranks", "rhythm", "by_tokens", "rates_tried", "widths"),
]
TABLES: dict[str, Callable[..., pd.DataFrame]] = {  # of the sweeps in docs/results, or of other tables there
    "losses": lambda swept: _losses(swept, PREVIOUS),
    "alone": lambda swept: _losses(swept, "relora_zero2"),
    "beside_published": _beside_published,
    "by_tokens": _by_tokens,
    "accumulation": _accumulation,
    "alphas": _alphas,
    "costs": lambda rows: rows.drop(columns="seeds"),
    "counted": _counted,
    "groups": _groups,
    "gap_change": _gap_change,
    "implementations": lambda swept: _at_one_size(swept, "full"),
    "rhythm": lambda swept: _at_one_size(swept, "full_steady"),
    "ranks": _at_its_rate,
    "gaps": mean_gaps,
    "beside_control": _beside_control,
    "with_more_tokens": _with_more_tokens,
    "trend": fitted_trend,
    "rates": _rates,
    "rates_tried": _rates_tried,
    "widths": _widths,
    "chosen": _chosen,
    "differences": lambda rows: rows[rows.measure == "held_out_loss"].drop(columns=["measure", "seeds", "diverged"]),
    "whole": lambda rows: rows,
    "claims": lambda rows: rows.filter(["claim", "method", "value", "value_low", "value_high", "p_holm", "verdict"]),
}


def draw(name: str, folder: Path) -> Figure:
    """The figure ``name`` from its tables in ``folder``."""
    of_sweep = name in (*OF_SWEEPS, *SWEEPS)
    return FIGURES[name](_swept(SWEEPS.get(name, (name,)), folder) if of_sweep else _read(name, folder))


def _read(name: str, folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.csv")


def _swept(names: Iterable[str], folder: Path) -> Swept:
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

    A mark behind a number names table, column and method, and the size, the tokens or the rank where there are several:
    `0.11<!-- gaps of tuned: gap of relora at tiny -->`.
    """
    for said, kind, names, column, method, size in NUMBER.findall(page):
        rows = _rows(kind, names.split(" and "), folder)
        named = rows.rename(columns={"yardstick": "method"})
        place = next(named[key] for key in ("size", "tokens", "rank", "method") if key in named).astype(str)
        chosen = named[(named.method == method) & (not size or place == size)]
        yield said, f"{abs(float(chosen[column].item())):.{len(said.partition('.')[2])}f}"


def _rows(kind: str, names: list[str], folder: Path) -> pd.DataFrame:
    table = TABLES[kind]
    return table(_swept(names, folder)) if kind in OF_SWEEPS else table(*(_read(name, folder) for name in names))


def _table(kind: str, names: list[str], folder: Path) -> str:
    words = readable(_rows(kind, names, folder)).map(markdown)
    sides = ["left" if column in WORDS else "right" for column in words]
    return str(words.to_markdown(index=False, disable_numparse=True, colalign=sides)) + "\n"
