"""The released curves of the paper, as rows of this project's own long tables, and what they show by themselves."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pandas as pd

from ..config import Cell

FOLDER = Path(__file__).parents[3] / "resources" / "published"
PARADIGMS = FOLDER.parent / "blimp_paradigms.csv"
NAMES = {"full": "full, published", "relora": "ReLoRA, published"}
COMPONENTS = {"swiglu_w2": "w2", "ov_circuit": "ov_authors", "attention_v": "v", "attention_o": "o"}
RANK, RESET_PERIOD, CONTEXT_LENGTH, VOCAB_SIZE, STEPS = 16, 2000, 2048, 50304, 20000
WIDTHS = {"tiny": 96, "small": 384}  # d_model; W2 and O have as many singular values, V a third as many
SHAPE = {"num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 4}

Row = dict[str, str | float]


def published_ceiling(size: str, component: str) -> float:
    """r / min(m, n) of ``component`` at the paper's shapes: what PER of B A cannot pass but by round-off."""
    return RANK / (WIDTHS[size] // 3 if component == "v" else WIDTHS[size])


def has_papers_shape(cell: Cell) -> bool:
    """Whether a cell's size is the paper's of the same name, at its context and vocabulary."""
    width = WIDTHS.get(cell.size_name, 0)
    shape = {"d_model": width, "intermediate_size": 4 * width, **SHAPE}
    return cell.size.model_dump() == shape and (cell.model.context_length, cell.model.vocab_size) == (
        CONTEXT_LENGTH,
        VOCAB_SIZE,
    )


@cache
def published_table(file: str) -> pd.DataFrame:
    """The released values as rows of ``file`` (log.csv, evaluation.csv, dynamics.csv) with cell, size, method, seed."""
    rows = {"log.csv": _log, "evaluation.csv": _evaluation, "dynamics.csv": _dynamics}[file]()
    method = rows.method.map(NAMES)
    return rows.assign(method=method, cell=rows["size"] + "-" + method, seed=-1)


def _log() -> pd.DataFrame:
    curves = pd.read_csv(FOLDER / "training_curves.csv")
    losses = curves[curves.metric == "train_loss"].rename(columns={"value": "loss"})
    return losses[["size", "method", "step", "loss"]]


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
    paradigms = pd.read_csv(FOLDER / "blimp_by_paradigm.csv").rename(columns={"accuracy": "value"})
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


def published_values(size: str, method: str) -> pd.Series:
    """What the paper reports of one cell at step 20,000, and its spectra at the start and the end, by name."""
    final = pd.read_csv(FOLDER / "final.csv", comment="#").set_index(["size", "method"]).loc[(size, method)]
    rows = published_table("dynamics.csv")
    rows = rows[(rows["size"] == size) & (rows.method == NAMES[method])]
    spectra = rows.set_index(["quantity", "metric", "component", "step"]).value.sort_index()
    spectra = spectra[spectra.index.get_level_values("step").isin([0, STEPS])]
    spectra.index = ["/".join(map(str, key)) for key in spectra.index]
    return pd.concat([final, spectra])


def published_audit() -> pd.DataFrame:
    """What the released curves show by themselves: columns finding, size, measure, value, verdict."""
    rows = [row for size in WIDTHS for row in (*_flat_start(size), *_spikes(size), *_growth(size))]
    return pd.DataFrame(rows, columns=["finding", "size", "measure", "value", "verdict"])


def _flat_start(size: str) -> Iterator[Row]:
    rows = published_table("dynamics.csv")
    rows = rows[
        (rows["size"] == size)
        & (rows.method == NAMES["relora"])
        & (rows.quantity == "weights")
        & (rows.metric == "per")
    ]
    per = rows[rows.component == "w2"].set_index("step").value
    first, later = (abs(per[end] - per[start]) for start, end in ((0, RESET_PERIOD), (RESET_PERIOD, 2 * RESET_PERIOD)))
    verdict = "flat until the first reset" if first < 0.01 * later else "moves from the start"
    yield _row("dead first cycle", size, "change of PER of W2 in cycle 1, over that in cycle 2", first / later, verdict)


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
    for component in ("v", "o", "w2"):
        share = rows[(rows["size"] == size) & (rows.component == component)].set_index("cycle").share
        steady = share.corr(pd.Series(share.index, share.index), method="spearman")
        grows = steady > 0.8 and share.iloc[-1] > 1.5 * share.iloc[0]
        verdict = "grows over cycles: not started again" if grows else "the same in each cycle: started again"
        yield _row(
            "no restart", size, f"PER of {component}'s adapters over its ceiling, first cycle", share.iloc[0], verdict
        )
        yield _row(
            "no restart", size, f"PER of {component}'s adapters over its ceiling, last cycle", share.iloc[-1], verdict
        )


def _row(finding: str, size: str, measure: str, value: float, verdict: str) -> Row:
    return {"finding": finding, "size": size, "measure": measure, "value": float(value), "verdict": verdict}
