"""The outcome on one screen: one source for the terminal, the Markdown page and the web report's first page."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from docutils.core import publish_parts
from readings import with_losses
from relora_study.analysis.published import Published
from relora_study.config import RateRatios
from relora_study.report.sentences import answer, limits
from relora_study.report.summary import first_page, outcome
from relora_study.report.templates import render


def test_it_tells_each_loss_its_gap_and_the_counts(unchanged):
    losses = dict(zip(unchanged.cells, [5.0, 5.25, 5.5, 4.5, 4.25, 4.5], strict=True))
    text = render("summary.txt", outcome(with_losses(unchanged, losses)))
    lines = text.splitlines()
    assert lines[0].startswith("6 trainings of 614,400 tokens, none diverged. One seed.") and "not of seeds" in lines[0]
    rows = {line[:27].strip(): line[27:].split() for line in lines[2:6]}
    assert rows["held-out loss (nats/token)"] == ["tiny", "small"] and rows["full rank"] == ["5.000", "4.500"]
    ends = ["+0.250", "[+0.250,", "+0.250]"], ["−0.250", "[−0.250,", "−0.250]"]
    assert rows["ReLoRA"] == ["5.250", *ends[0], "4.250", *ends[1]]
    assert "unigram 7.000, bigram 5.100" in text and "seeds: 3" in lines[-1]


def test_a_cell_that_diverged_has_no_loss_and_is_counted(unchanged, monkeypatch):
    losses = dict.fromkeys(unchanged.cells, 5.0) | {"tiny-relora-s42": np.nan}
    runs = with_losses(unchanged, losses)
    monkeypatch.setattr(type(runs), "diverged", {"tiny-relora-s42": 30})
    told = outcome(runs)
    lines = render("summary.txt", told).splitlines()
    assert lines[0].startswith("6 trainings of 614,400 tokens, 1 of them diverged.")
    assert pd.Series(lines).str.match(r"ReLoRA +diverged +5\.000").any()
    assert "1 of 6 cells diverged: tiny, ReLoRA" in render("summary.md", told)


def test_one_rate_for_all_weights_is_a_limit_where_no_method_has_rates_by_group(unchanged):
    said = "All weights of a method share one learning rate"
    assert said in " ".join(limits(unchanged)) and said in render("summary.md", outcome(unchanged))
    cells = dict(unchanged.cells)
    name, cell = next(iter(cells.items()))
    apart = cell.method.model_copy(update={"rate_ratios": RateRatios(embedding=4.0)})
    cells[name] = cell.model_copy(update={"method": apart})
    assert said not in " ".join(limits(replace(unchanged, cells=cells)))


@pytest.mark.parametrize(
    ("gaps", "said"),
    [
        (
            [0.1, 0.3, 0.2, 0.1],
            "ReLoRA and ReLoRA as released end at a higher held-out loss than full rank, by 0.10 to 0.30",
        ),
        (
            [-0.1, -0.3, -0.2, -0.1],
            "ReLoRA and ReLoRA as released end at a lower held-out loss than full rank, by 0.10",
        ),
        ([0.01, 0.0, -0.02, 0.01], "end level with full rank in held-out loss, within the margin of 0.03"),
        ([0.1, 0.01, 0.02, 0.01], "ReLoRA at tiny ends at a higher held-out loss than full rank, by 0.10 nats"),
        ([0.1, 0.01, 0.02, 0.01], "ReLoRA as released and ReLoRA at small end level with full rank"),
    ],
)
def test_the_answer_follows_the_verdicts(unchanged, gaps, said):
    """``gaps``: of relora and relora_released at tiny, then at small."""
    losses = dict(zip(unchanged.cells, [5, 5 + gaps[0], 5 + gaps[1], 4, 4 + gaps[2], 4 + gaps[3]], strict=True))
    sentences = " ".join(answer(with_losses(unchanged, losses)))
    assert said in sentences and "(one seed)" in sentences


def test_what_documents_do_not_decide_is_not_called_level(unchanged):
    losses = dict.fromkeys(unchanged.cells, 5.0) | {"tiny-relora-s42": 5.2, "small-relora-s42": 5.2}
    runs = with_losses(unchanged, losses)
    for name in ("tiny-relora-s42", "small-relora-s42"):
        runs.losses.nats[name][:] = 250 + np.array([-40.0, 60.0])
    assert "which does not decide between level and apart" in " ".join(answer(runs))


def test_findings_are_those_that_the_data_show(unchanged):
    alike = outcome(with_losses(unchanged, dict.fromkeys(unchanged.cells, 5.0)))
    assert "below the counted unigram (7.00) and bigram (5.10)" in alike["findings"][0]
    assert not any("gap to full rank changes" in one for one in alike["findings"])
    losses = dict(zip(unchanged.cells, [5.2, 5.3, 5.3, 5.2, 5.7, 5.3], strict=True))
    grown = " ".join(outcome(with_losses(unchanged, losses))["findings"])
    assert "above the counted bigram (5.10)" in grown
    assert "Between tiny and small, the gap to full rank changes by +0.40 (ReLoRA) nats a token." in grown
    assert "A merge of ReLoRA as released drops 50% of the adapters' product." in grown and len(alike["findings"]) <= 5


def test_the_first_page_begins_with_the_answer_and_shows_the_figure(unchanged, drawn, figures):
    drawn("gap_over_training")
    page = first_page(unchanged, figures / "gap_over_training.png")
    html = publish_parts(page, writer="html")["html_body"]
    assert "system-message" not in html and "<table" in html and "data:image/png;base64," in html
    order = [html.index(said) for said in (answer(unchanged)[0][:30], "<table", "<img", "Findings", "Limits", "Cost")]
    assert order == sorted(order) and order[0] < 200
    assert "Versions: python 3.11, torch 2.13.0." in html and "2 CPU cores (Linux on a test)" in html


def test_the_first_page_of_the_published_values(tmp_path):
    html = publish_parts(first_page(Published(), tmp_path), writer="html")["html_body"]
    assert "<table" in html and "system-message" not in html
