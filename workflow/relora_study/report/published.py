"""The released curves of the paper, as rows of this project's own long tables, and what they show by themselves."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from ..schedule import learning_rate_ratio
from .numbers import plain
from .round_off import FORMATS, random_product
from .shapes import LEARNING_RATE, RANK, RESET_PERIOD, SCHEDULES, STEPS, WIDTHS

FOLDER = Path(__file__).parents[3] / "resources" / "published"
PARADIGMS = FOLDER.parent / "blimp_paradigms.csv"
NAMES = {"full": "full, published", "relora": "ReLoRA, published"}
COMPONENTS = {"swiglu_w2": "w2", "ov_circuit": "ov_authors", "attention_v": "v", "attention_o": "o"}
BLIMP_PAIRS = 67_000

Row = dict[str, str | float]


def published_ceiling(size: str, component: str) -> float:
    """r / min(m, n) of ``component`` at the paper's shapes: what PER of B A cannot pass but by round-off."""
    return RANK / (WIDTHS[size] // 3 if component == "v" else WIDTHS[size])


@cache
def published_table(file: str) -> pd.DataFrame:
    """The released values as rows of ``file`` (log.csv, evaluation.csv, dynamics.csv) with cell, size, method, seed."""
    rows = {"log.csv": _log, "evaluation.csv": _evaluation, "dynamics.csv": _dynamics}[file]()
    method = rows.method.map(NAMES)
    return rows.assign(method=method, cell=rows["size"] + "-" + method, seed=-1)


def _log() -> pd.DataFrame:
    curves = pd.read_csv(FOLDER / "training_curves.csv")
    losses = curves[curves.metric == "train_loss"].rename(columns={"value": "loss"})
    ratios = [
        learning_rate_ratio(SCHEDULES[method], step - 1) if step else 0.0
        for method, step in zip(losses.method, losses.step, strict=True)
    ]
    return losses.assign(learning_rate=np.multiply(ratios, LEARNING_RATE))[
        ["size", "method", "step", "loss", "learning_rate"]
    ]


def _evaluation() -> pd.DataFrame:
    curves = pd.read_csv(FOLDER / "training_curves.csv")
    names = {
        "paloma_ppl": ("perplexity", "overall", "mean_text_perplexity"),
        "blimp_accuracy": ("minimal_pairs", "overall", "accuracy"),
    }
    columns = ["suite", "item", "metric"]
    parts = [
        curves[curves.metric == name].assign(**dict(zip(columns, kept, strict=True))) for name, kept in names.items()
    ]
    paradigms = released_paradigms().rename(columns={"accuracy": "value"})
    phenomena = paradigms.paradigm.map(pd.read_csv(PARADIGMS, comment="#").set_index("paradigm").phenomenon)
    by_phenomenon = (
        paradigms.assign(item="phenomenon/" + phenomena).groupby(["size", "method", "step", "item"]).value.mean()
    )
    parts.append(by_phenomenon.reset_index().assign(suite="minimal_pairs", metric="accuracy"))
    return pd.concat(parts)[["size", "method", "step", *columns, "value"]]


def _dynamics() -> pd.DataFrame:
    curves = pd.read_csv(FOLDER / "dynamics_curves.csv").rename(columns={"mean_over_layers": "value"})
    return curves.assign(component=curves.component.map(COMPONENTS), layer=-1, reason="")


def adapter_per() -> pd.DataFrame:
    """PER of the published adapters as a share of its ceiling r / min(m, n): columns size, component, cycle, share."""
    rows = published_table("dynamics.csv")
    rows = rows[
        (rows.quantity == "updates") & (rows.metric == "per") & (rows.method == NAMES["relora"]) & (rows.step > 0)
    ]
    ceiling = [published_ceiling(*key) for key in zip(rows["size"], rows.component, strict=True)]
    return rows.assign(cycle=rows.step // RESET_PERIOD, share=rows.value / ceiling)[
        ["size", "component", "cycle", "share"]
    ]


def released_paradigms() -> pd.DataFrame:
    """Accuracy on each of BLiMP's paradigms: columns size, method (full, relora), step, paradigm, accuracy."""
    return pd.read_csv(FOLDER / "blimp_by_paradigm.csv")


def final_values() -> pd.DataFrame:
    """The paper's table at step 20,000, by size and method."""
    return pd.read_csv(FOLDER / "final.csv", comment="#").set_index(["size", "method"])


def hours_a_step(size: str, method: str) -> float:
    """Published A100 GPU-hours a step, spread evenly; ``method`` by the name of its curve (``NAMES``)."""
    own = next(key for key, name in NAMES.items() if name == method)
    return float(final_values().gpu_hours[size, own]) / STEPS


def loss_around_resets(size: str) -> pd.DataFrame:
    """The released loss minus its mean of fifty steps before: columns step (after the reset), reset_step, loss.

    The first reset merges nothing that the adapters have learnt, and is left out, as in `around_resets`.
    """
    log = published_table("log.csv")
    loss = log[(log["size"] == size) & (log.method == NAMES["relora"])].groupby("step").loss.mean()
    parts = []
    for at in range(2 * RESET_PERIOD, STEPS, RESET_PERIOD):
        near = loss.loc[at - 50 : at + 200] - loss.loc[at - 50 : at].mean()
        parts.append(pd.DataFrame({"step": near.index - at, "reset_step": at, "loss": near.to_numpy()}))
    return pd.concat(parts, ignore_index=True)


def published_values(size: str, method: str) -> pd.Series:
    """What the paper reports of one cell at step 20,000, and its spectra at the start and the end, by name."""
    final = final_values().loc[(size, method)]
    rows = published_table("dynamics.csv")
    rows = rows[(rows["size"] == size) & (rows.method == NAMES[method])]
    spectra = rows.set_index(["quantity", "metric", "component", "step"]).value.sort_index()
    spectra = spectra[spectra.index.get_level_values("step").isin([0, STEPS])]
    spectra.index = ["/".join(map(str, key)) for key in spectra.index]
    return pd.concat([final, spectra])


def published_audit() -> pd.DataFrame:
    """What the released curves show by themselves: columns finding, size, measure, value, verdict."""
    parts = (_dead, _spikes, _growth, _ceiling, _round_off)
    rows = [row for size in WIDTHS for part in parts for row in part(size)]
    return pd.DataFrame(rows, columns=["finding", "size", "measure", "value", "verdict"])


def flat_start(size: str) -> float:
    """How far PER of W2 moves in ReLoRA's first cycle, over how far it moves in the second."""
    per = _relora(size, "weights", "per", "w2")
    first, later = (abs(per[end] - per[start]) for start, end in ((0, RESET_PERIOD), (RESET_PERIOD, 2 * RESET_PERIOD)))
    return float(first / later)


def _relora(size: str, quantity: str, metric: str, component: str) -> pd.Series:
    """One released curve of ReLoRA, by step."""
    rows = published_table("dynamics.csv")
    rows = rows[(rows["size"] == size) & (rows.method == NAMES["relora"]) & (rows.quantity == quantity)]
    return rows[(rows.metric == metric) & (rows.component == component)].set_index("step").value.sort_index()


def _dead(size: str) -> Iterator[Row]:
    share = flat_start(size)
    verdict = "flat until the first reset" if share < 0.01 else "moves from the start"
    yield _row("dead first cycle", size, "change of PER of W2 in cycle 1, over that in cycle 2", share, verdict)


def _spikes(size: str) -> Iterator[Row]:
    log = published_table("log.csv")
    loss = log[(log["size"] == size) & (log.method == NAMES["relora"])].groupby("step").loss.mean()
    jumps = [
        loss.loc[at + 1 : at + 20].max() - loss.loc[at - 50 : at].mean()
        for at in range(RESET_PERIOD, STEPS, RESET_PERIOD)
    ]
    verdict = "no spike: nothing was learnt that a merge could lose" if jumps[0] < 0.1 * jumps[1] else "a spike"
    yield _row("unscaled merge", size, "jump of the loss at the reset at 2,000 (nats/token)", jumps[0], verdict)
    verdict = "a spike at every later reset, where the rate is 0" if min(jumps[1:]) > max(0.0, jumps[0]) else "no spike"
    yield _row(
        "unscaled merge", size, "smallest jump of the loss at a later reset (nats/token)", min(jumps[1:]), verdict
    )


def _growth(size: str) -> Iterator[Row]:
    rows = adapter_per()
    for component, name in (("v", "V"), ("o", "O"), ("w2", "W2")):
        share = rows[(rows["size"] == size) & (rows.component == component)].set_index("cycle").share
        steady = share.corr(pd.Series(share.index, share.index), method="spearman")
        grows = steady > 0.8 and share.iloc[-1] > 1.5 * share.iloc[0]
        verdict = "grows over cycles: not started again" if grows else "the same in each cycle: started again"
        for which, value in (("first", share.iloc[0]), ("last", share.iloc[-1])):
            measure = f"PER of {name}'s adapters over its ceiling, {which} cycle"
            yield _row("no restart", size, measure, value, verdict)


def _ceiling(size: str) -> Iterator[Row]:
    share = _relora(size, "updates", "per", "w2").iloc[-1] / published_ceiling(size, "w2")
    verdict = "on the ceiling that its rank sets" if share > 0.95 else "below its ceiling"
    yield _row("rank ceiling", size, "PER of W2's B A over r / min(m, n), at step 20,000", share, verdict)
    rounded = random_product(WIDTHS[size], 4 * WIDTHS[size], RANK, "bfloat16")[1]
    near = abs(share / rounded - 1) < 0.05
    verdict = "what a level spectrum gives in bfloat16" if near else "not bfloat16's rounding of a level spectrum"
    yield _row(
        "rank ceiling", size, "PER over r / min(m, n) of a random product of rank 16 in bfloat16", rounded, verdict
    )


def _round_off(size: str) -> Iterator[Row]:
    read = _relora(size, "updates", "condition_number", "w2").iloc[-1]
    made = {name: random_product(WIDTHS[size], 4 * WIDTHS[size], RANK, name)[0] for name in FORMATS}
    near = min(made, key=lambda name: abs(np.log(read / made[name])))
    verdict = f"nearest to the round-off of {near}"
    yield _row("round-off", size, "condition number of W2's B A at step 20,000", read, verdict)
    for name, value in made.items():
        measure = f"condition number of a random product of rank 16 in {name}"
        yield _row("round-off", size, measure, value, f"{plain(max(read / value, value / read))} times away")


def _row(finding: str, size: str, measure: str, value: float, verdict: str) -> Row:
    return {"finding": finding, "size": size, "measure": measure, "value": float(value), "verdict": verdict}
