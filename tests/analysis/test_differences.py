"""Differences paired by seed, against closed forms."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from relora_study.analysis.differences import differences, gaps, trend
from relora_study.analysis.losses import Losses
from relora_study.analysis.results import Runs
from scipy.stats import ttest_1samp
from statsmodels.api import OLS, add_constant

GAPS = {24: [0.10, 0.12], 48: [0.22, 0.20], 96: [0.28, 0.33], 192: [0.41, 0.40]}


def of_widths(losses: dict[int, list[float]], documents: int = 1) -> Runs:
    """Runs of one method beside full rank, whose loss is 5, with ``losses`` over it by width, alike by document."""
    cells, nats = {}, {}
    for width, over in losses.items():
        size = SimpleNamespace(d_model=width)
        for seed, gap in enumerate(over):
            for name, loss in (("full", 5.0), ("relora", 5.0 + gap)):
                method = SimpleNamespace(is_full_rank=name == "full")
                cell = f"w{width}-{name}-s{seed}"
                named = {"name": cell, "size_name": f"w{width}", "method_name": name, "seed": seed}
                cells[cell] = SimpleNamespace(**named, size=size, method=method)
                nats[cell] = np.full(documents, 100 * loss)
    runs = Runs(Path(), cells)
    runs.__dict__["losses"] = Losses(np.full(documents, 100.0), nats)
    return runs


def test_the_trend_is_the_line_through_the_means_of_sizes_by_doublings():
    (row,) = trend(of_widths(GAPS)).to_dict("records")
    fit = OLS([np.mean(gaps) for gaps in GAPS.values()], add_constant(np.log2(list(GAPS)))).fit()
    assert fit.df_resid == 2, "cells of one size share a rate and a text"
    assert (row["sizes"], row["cells"], row["slope"]) == (4, 8, pytest.approx(fit.params[1]))
    assert [row["slope_low"], row["slope_high"]] == pytest.approx(list(fit.conf_int(0.05)[1]))
    assert row["p"] == pytest.approx(fit.pvalues[1])


def test_more_seeds_of_a_size_are_no_more_sizes():
    (few,), (many,) = (
        trend(of_widths(each)).to_dict("records") for each in (GAPS, {w: g * 5 for w, g in GAPS.items()})
    )
    assert many["cells"] == 5 * few["cells"] and many["p"] == pytest.approx(few["p"])


def test_two_sizes_show_no_trend_and_a_cell_without_full_rank_no_gap():
    source = of_widths({24: [0.1], 48: [0.2]})
    assert trend(source).slope.isna().all() and gaps(source).gap.tolist() == pytest.approx([0.1, 0.2])
    source.losses.nats["w24-full-s0"][:] = np.nan
    assert gaps(source)["size"].tolist() == ["w48"]


def differing(monkeypatch, losses: dict[int, list[float]], documents: int = 1) -> pd.DataFrame:
    """The table of differences of :func:`of_widths`; perplexity and accuracy of full rank and the other differ by 1."""
    runs = of_widths(losses, documents)
    rows = [
        {
            "cell": name,
            "suite": suite,
            "item": item,
            "metric": metric,
            "step": 10,
            "value": float(suite == "perplexity"),
        }
        for name in runs.cells
        for suite, item, metric in runs.measures.values()
    ]
    monkeypatch.setattr(Runs, "table", lambda self, file: pd.DataFrame(rows))
    monkeypatch.setattr(Runs, "diverged", {})
    return differences(runs).set_index(["measure", "size"])


def test_a_row_pairs_a_method_with_full_rank_by_seed_and_judges_it_by_the_margin(monkeypatch):
    over = [0.10, 0.12, 0.14]
    table = differing(monkeypatch, {48: over, 96: [0.010, 0.011, 0.012]}, documents=4)
    row = table.loc["held_out_loss", "w48"]
    assert [row.difference, row.difference_low] == pytest.approx([0.12, ttest_1samp(over, 0).confidence_interval().low])
    assert (row.seeds, row.diverged, row.chance, row.verdict) == (3, 0, "seeds and documents", "higher")
    assert table.verdict["held_out_loss", "w96"] == "equal within the margin"
    assert table.difference["accuracy", "w48"] == 0 and table.chance["accuracy", "w48"] == "seeds"


def test_a_cell_that_diverged_is_counted_and_left_out(monkeypatch):
    of = of_widths

    def diverged(*given):
        runs = of(*given)
        runs.losses.nats["w48-relora-s0"][:] = np.nan
        return runs

    monkeypatch.setitem(globals(), "of_widths", diverged)
    row = differing(monkeypatch, {48: [0.5, 0.12, 0.14]}).loc["held_out_loss", "w48"]
    assert (row.seeds, row.diverged, row.difference) == (3, 1, pytest.approx(0.13))


def test_one_seed_is_compared_over_documents_and_its_verdict_says_so(monkeypatch):
    row = differing(monkeypatch, {48: [0.1]}, documents=30).loc["held_out_loss", "w48"]
    assert (row.chance, row.verdict) == ("documents, one seed", "higher, one seed")
