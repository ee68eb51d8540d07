"""The figures and tables of docs/findings.md, made from the small tables in docs/results that presets left."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..analysis.differences import fitted_trend, mean_gaps
from ..analysis.experiments import changes, responses, sweep_table
from ..analysis.published import FOLDER as PUBLISHED
from ..config.experiments import PREVIOUS
from .escape import markdown
from .figures.evaluation import draw_gaps
from .figures.experiments import draw_changes, draw_costs, draw_response, draw_search
from .numbers import method_label, readable, setting

CONTROL = "full_slow_targets"
RANK_KEYS = ["rank", "reset_period", "learning_rate"]
MARKED = re.compile(
    r"(<!-- table (\w+) of (\w+(?: and \w+)*): made by `make findings` -->\n).*?(?=<!-- end -->)", re.DOTALL
)
WORDS = ("size", "method", "compared with", "claim", "verdict")  # columns that are set to the left


def _losses(against: str) -> Callable[..., pd.DataFrame]:
    """The mean loss of each method of a sweep at each size, and its difference to what it is compared with."""

    def table(*sweeps: pd.DataFrame) -> pd.DataFrame:
        every = sweep_table(pd.concat(sweeps), [], against)
        silent = ["verdict", "p", "p_holm", *([] if every.diverged.any() else ["diverged", "seeds_paired"])]
        return every.drop(columns=silent)

    return table


def _accumulation(runs: pd.DataFrame) -> pd.DataFrame:
    """The mean loss and peak memory by method and micro-batch; the trainings shared a machine, so not their times."""
    return responses(runs, ["micro_batch_size"]).drop(columns=["size", "verdict", "diverged", "minutes"])


def _at_its_rate(runs: pd.DataFrame) -> pd.DataFrame:
    """The lowest mean loss over the tried rates of each rank and reset period, and whether it is the lowest of all."""
    table = responses(runs, RANK_KEYS)
    lowest = table.loc[table.groupby(["rank", "reset_period"]).loss.idxmin()]
    return lowest[[*RANK_KEYS, "seeds", "loss", "loss_low", "loss_high", "verdict"]]


def _alphas(runs: pd.DataFrame) -> pd.DataFrame:
    """The mean loss of each rank and alpha, at one rate."""
    table = responses(runs, ["rank", "alpha"]).sort_values(["rank", "alpha"])
    scale = table.alpha / table["rank"]
    return table.assign(alpha_over_rank=scale)[
        ["rank", "alpha", "alpha_over_rank", "seeds", "loss", "loss_low", "loss_high"]
    ]


def _costs(rows: pd.DataFrame) -> pd.DataFrame:
    """What each method holds and costs beside its gap to full rank."""
    return rows.drop(columns=["seeds"])


def _implementations(runs: pd.DataFrame) -> pd.DataFrame:
    """The mean loss of each public implementation's rules at `tiny`, and its gap to full rank."""
    return _losses("full")(runs).drop(columns=["size", "compared_with"])


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


def _beside_published(*sweeps: pd.DataFrame) -> pd.DataFrame:
    """The gap to full rank of each method of ReLoRA's own ablation, beside the published one: logs of perplexities."""
    ours = changes(pd.concat(sweeps), "full")[["size", "method", "difference", "difference_low", "difference_high"]]
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


# A figure is drawn from the table of its name, and from those that SIZES adds.
SIZES = {name: (name, f"{name}_small") for name in ("alone", "ladder")}
FIGURES: dict[str, Callable[[pd.DataFrame], Figure]] = {
    "alone": lambda runs: draw_changes(runs, "relora_zero2"),
    "implementations": lambda runs: draw_changes(runs, "full"),
    "ladder": lambda runs: draw_changes(runs, PREVIOUS),
    "methods": draw_costs,
    "ranks": lambda runs: draw_response(runs, RANK_KEYS),
    "tuned_gaps": lambda rows: draw_gaps(rows, ["full", *rows.method.unique()], "full"),
    "tuned_search": draw_search,
}
TABLES: dict[str, Callable[..., pd.DataFrame]] = {  # of one table of docs/results, or of several
    "losses": _losses(PREVIOUS),
    "alone": _losses("relora_zero2"),
    "beside_published": _beside_published,
    "accumulation": _accumulation,
    "alphas": _alphas,
    "costs": _costs,
    "implementations": _implementations,
    "ranks": _at_its_rate,
    "gaps": mean_gaps,
    "beside_control": _beside_control,
    "with_more_tokens": _with_more_tokens,
    "trend": fitted_trend,
    "rates": _rates,
    "claims": lambda rows: rows[["claim", "method", "value", "value_low", "value_high", "verdict"]],
}


def draw(name: str, folder: Path) -> Figure:
    """The figure ``name`` from its tables in ``folder``."""
    tables = [pd.read_csv(folder / f"{table}.csv") for table in SIZES.get(name, (name,))]
    return FIGURES[name](pd.concat(tables))


def with_tables(page: str, folder: Path) -> str:
    """``page`` with each table between its marks made again from ``folder``."""
    return MARKED.sub(lambda mark: mark[1] + _table(mark[2], mark[3], folder), page)


def _table(kind: str, names: str, folder: Path) -> str:
    tables = [pd.read_csv(folder / f"{name}.csv") for name in names.split(" and ")]
    words = readable(TABLES[kind](*tables)).map(markdown)
    sides = ["left" if column in WORDS else "right" for column in words]
    return str(words.to_markdown(index=False, disable_numparse=True, colalign=sides)) + "\n"
