"""What the paper says of sweeps and of the search: a heading, sentences that the numbers choose, and a table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from ..analysis.effects import EQUAL, HIGHER, LOWER, ONE_SEED, UNDECIDED
from ..analysis.experiments import (
    CLOSE,
    method_cells,
    open_ends,
    open_sweep,
    search_table,
    sweep_settings,
    sweep_table,
)
from ..config import Point
from .captions import experiment_caption
from .numbers import SETTINGS, in_rows, in_words, listed, method_label, setting, spread, with_interval
from .rules import differing_rules

SEARCH = "search"
MOST_TOLD = 6  # settings that a sentence names
VERBS = {  # of a change, by its verdict
    LOWER: "lower the loss",
    HIGHER: "raise the loss",
    EQUAL: "end level within the margin",
    UNDECIDED: "are undecided",
    "": "differ at one seed, which gives no interval",
}


def experiment_sections(results: Path, names: list[str]) -> list[dict[str, Any]]:
    """A section of the paper for each experiment: its sentences and rules, its table, and captions."""
    return told_once([_section(results, name) for name in names])


def told_once(sections: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``sections`` without the rules that an earlier one tells, as where a sweep goes one way at two sizes."""
    told = [section["rules"] for section in sections]
    return [
        section | {"rules": [] if section["rules"] in told[:number] else section["rules"]}
        for number, section in enumerate(sections)
    ]


def _section(results: Path, name: str) -> dict[str, Any]:
    compares, cells = False, {}
    if name == SEARCH:
        table = search_table(results)
        chosen = table[table.outcome == "chosen"]
        said, rows = list(searched(table)), chosen.drop(columns=["outcome", "dropped_after", "steps"])
    else:
        settings = sweep_settings(results, name)
        swept = open_sweep(results, name)
        rows = sweep_table(swept, settings.keys, settings.against)
        compares = settings.against is not None
        cells = method_cells(results, swept.runs)
        said = list(compared(rows) if compares else responded(rows, settings.keys))
    return {
        "name": f"experiment_{name}",
        "heading": in_words(name).capitalize(),
        "sentences": said,
        "rules": differing_rules(cells),
        "caption": experiment_caption(name, "figure", compares),
        "table": in_rows(rows.drop(columns=silent_columns(rows))),
        "table_caption": experiment_caption(name, "table", compares),
    }


def silent_columns(rows: pd.DataFrame) -> list[str]:
    """Columns that say nothing of this experiment, and those of one value, which its sentences tell."""
    silent = {"diverged": 0, "verdict": "", "edge": ""}
    empty = [name for name, nothing in silent.items() if name in rows and (rows[name] == nothing).all()]
    alike = [name for name in ("size", "method", "compared_with", *SETTINGS) if name in rows and _is_one(rows[name])]
    return [*empty, *alike, *(["seeds_paired"] if "seeds_paired" in rows and _all_paired(rows) else [])]


def _all_paired(rows: pd.DataFrame) -> bool:
    return bool((rows.seeds_paired.isna() | (rows.seeds_paired == rows.seeds)).all())


def _is_one(values: pd.Series) -> bool:
    return len(values) > 1 and values.nunique() == 1


def compared(rows: pd.DataFrame) -> Iterator[str]:
    """For each size: the changes by their verdict, and what diverged.

    A difference of one seed on text whose documents are not known has no interval, and is said to have none.
    """
    for size, group in rows.groupby("size", sort=False):
        shown = group.dropna(subset="difference")
        of_seeds = shown.verdict.str.removesuffix(ONE_SEED)
        found = {verb: shown[of_seeds == verdict] for verdict, verb in VERBS.items()}
        said = [f"{verb}: {'; '.join(map(_change, one.itertuples()))}" for verb, one in found.items() if len(one)]
        yield from (f"At {in_words(size)}, {_reference(group)}, these {text}." for text in said)
        yield from _diverged(size, group)


def _diverged(size: object, group: pd.DataFrame) -> Iterator[str]:
    """Which methods of a size diverge as they are, and in how many seeds."""
    if len(diverged := group[group.diverged > 0]):
        named = (f"{method_label(row.method)} ({row.diverged} of {row.seeds} seeds)" for row in diverged.itertuples())
        yield f"At {in_words(size)}, these diverge: {'; '.join(named)}."


def _reference(group: pd.DataFrame) -> str:
    """What the methods of a size are compared with: one of them, or each with the one before."""
    references = group.compared_with.dropna().unique()
    return f"compared with {method_label(*references)}" if len(references) == 1 else "each compared with the one before"


def _change(row: Any) -> str:
    change = with_interval(row.difference, row.difference_low, row.difference_high)
    return f"{method_label(row.method)}, {change}" + " (one seed)" * str(row.verdict).endswith(ONE_SEED)


def responded(rows: pd.DataFrame, keys: list[str]) -> Iterator[str]:
    """For each size and method: where its loss is lowest, what is as good, what may lie beyond, and what diverges."""
    if not keys:
        for size, group in rows.groupby("size", sort=False):
            yield from _diverged(size, group)
        return
    for (size, method), group in rows.groupby(["size", "method"], sort=False):
        named = method_label(str(method))
        said = [*_alone(named, group, keys), *_lowest(named, group, keys), *_diverging(named, group, keys)]
        yield from (f"At {in_words(size)}, {sentence}" for sentence in said)


def _alone(named: str, group: pd.DataFrame, keys: list[str]) -> Iterator[str]:
    """The loss of a method that a sweep trains in one setting, as where it uses none of the keys."""
    row = group.iloc[0]
    if len(group) == 1 and pd.notna(row.loss) and not row.verdict:
        unused = listed(map(in_words, keys))
        aside = "" if _varied(row, keys) else f", which does not use {unused},"
        yield f"the loss of {named}{aside} is {_loss(row)}{_with(row, keys)}."


def _lowest(named: str, group: pd.DataFrame, keys: list[str]) -> Iterator[str]:
    close = int((group.verdict == CLOSE).sum())
    for _, row in group[~group.verdict.isin(["", CLOSE])].iterrows():
        edge = row.verdict.partition(", ")[2]
        beyond = f", {in_words(edge)}: a lower one may lie beyond" if edge else ""
        yield f"the lowest loss of {named} is {_loss(row)}{_with(row, keys)}{beyond}.{_close(close, len(group) - 1)}"


def _diverging(named: str, group: pd.DataFrame, keys: list[str]) -> Iterator[str]:
    """In which settings a method diverges; of many, how many they are."""
    diverged = group[group.diverged > 0]
    if len(diverged) == len(group) > 1 and (group.diverged == group.seeds).all():
        yield f"{named} diverges in every setting and seed."
    elif len(diverged) > MOST_TOLD:
        yield f"{named} diverges in {len(diverged)} of {len(group)} settings."
    elif len(diverged):
        places = (f"{_with(row, keys)[2:]} ({row.diverged} of {row.seeds} seeds)" for _, row in diverged.iterrows())
        yield f"{named} diverges {'; '.join(places).strip()}."


def _loss(row: Any) -> str:
    return with_interval(row.loss, row.loss_low, row.loss_high)


def _varied(row: Any, keys: list[str]) -> Point:
    """The settings of ``row`` by key, without the keys that do nothing there."""
    return {key: row[key] for key in keys if pd.notna(row[key])}


def _with(row: Any, keys: list[str]) -> str:
    return f", with {_settings(varied)}" if (varied := _varied(row, keys)) else ""


def _close(close: int, others: int) -> str:
    """How many of the ``others`` are not clearly higher than the lowest."""
    if close == others > 1:
        return f" None of the {others} other settings is clearly higher."
    return f" Of the {others} other settings, {close} {'is' if close == 1 else 'are'} not clearly higher." * bool(close)


def searched(table: pd.DataFrame) -> Iterator[str]:
    """For each size: the settings that the search of each method chose, and where a better one may lie beyond."""
    for size, of_size in table.groupby("size", sort=False):
        chosen = [f"{method_label(str(name))} {_chosen(rows)}" for name, rows in of_size.groupby("method", sort=False)]
        yield f"At {in_words(size)}, the search chose: {'; '.join(chosen)}."
    searches = table.groupby(["size", "method"], sort=False)
    chosen = table[table.outcome == "chosen"]
    steps, longest = searches.steps.sum(), (chosen.steps / chosen.seeds).max()
    yield (
        f"Each search tried {spread(searches.size(), ',')} candidates. It took {spread(steps, ',')} steps,"
        f" {spread(steps / longest, '.1f')} times those of its longest training."
    )


def _chosen(group: pd.DataFrame) -> str:
    fixed = {"size", "method", "seeds", "loss", "steps", "outcome", "dropped_after", "edge"}
    chosen = group[group.outcome == "chosen"].iloc[0]
    point = chosen.drop(list(fixed), errors="ignore").dropna().to_dict()  # other methods may search other keys
    edges = open_ends(group, chosen, list(point))
    if not edges:
        return _settings(point)
    keys = listed(map(in_words, edges))
    return f"{_settings(point)} (the edge of {keys}: a better value may lie beyond)"


def _settings(point: Point) -> str:
    return ", ".join(f"{in_words(key)} {setting(value)}" for key, value in point.items())
