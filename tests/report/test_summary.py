"""The screen of text that a run ends with."""

from dataclasses import replace

import numpy as np
import pandas as pd
from relora_study.analysis.losses import Losses
from relora_study.report.summary import summary


def with_losses(runs, losses: dict[str, float]):
    """``runs`` whose cells score so on two documents; a loss that is not finite diverged."""
    made = replace(runs)
    made.__dict__["losses"] = Losses(
        np.array([50.0, 50.0]), {name: np.full(2, 50 * one) for name, one in losses.items()}
    )
    made.__dict__["yardsticks"] = {"unigram": 7.0, "bigram": 5.1}
    return made


def test_it_tells_each_loss_its_gap_and_the_counts(unchanged):
    losses = dict(zip(unchanged.cells, [5.0, 5.25, 5.5, 4.5, 4.25, 4.5], strict=True))
    lines = summary(with_losses(unchanged, losses)).splitlines()
    assert lines[0].startswith("6 trainings, none diverged.") and "not of seeds" in lines[0]
    rows = {line[:27].strip(): line[27:].split() for line in lines[2:6]}
    assert rows["held-out loss (nats/token)"] == ["tiny", "small"] and rows["full rank"] == ["5.000", "4.500"]
    ends = ["+0.250", "[+0.250,", "+0.250]"], ["-0.250", "[-0.250,", "-0.250]"]
    assert rows["ReLoRA"] == ["5.250", *ends[0], "4.250", *ends[1]]
    assert "unigram 7.000, bigram 5.100" in lines[-2] and "seeds: 3" in lines[-1]


def test_a_cell_that_diverged_has_no_loss_and_is_counted(unchanged, monkeypatch):
    losses = dict.fromkeys(unchanged.cells, 5.0) | {"tiny-relora-s42": np.nan}
    runs = with_losses(unchanged, losses)
    monkeypatch.setattr(type(runs), "diverged", {"tiny-relora-s42": 30})
    lines = summary(runs).splitlines()
    assert lines[0].startswith("6 trainings, 1 of them diverged.")
    assert pd.Series(lines).str.match(r"ReLoRA +diverged +5\.000").any()
