"""No part of the outcome says the contrary of another, in studies that are made to differ."""

from typing import Any

import numpy as np
import pytest
from readings import with_losses, write_results
from relora_study.analysis.results import open_runs
from relora_study.config import Report
from relora_study.report.paper import values
from relora_study.report.summary import outcome

HIGHER, LOWER, LEVEL = "a higher held-out loss than full rank", "a lower held-out loss than full rank", "end level with"
CLAIM = "ReLoRA has a higher loss than full rank"


@pytest.fixture(scope="module")
def study(raw, tmp_path_factory):
    """A function: the made readings of full rank, ReLoRA and the released form at two sizes, with so many seeds."""
    made = {}

    def study_of(seeds: int):
        if seeds not in made:
            folder = tmp_path_factory.mktemp(f"seeds{seeds}")
            chosen = {"methods": ["full", "relora", "relora_released"], "seeds": list(range(1, seeds + 1))}
            write_results({**raw, "study": raw["study"] | chosen}, folder)
            made[seeds] = open_runs(folder)
        return made[seeds]

    return study_of


def with_gap(runs, gap: float):
    """``runs`` in which every other method ends by ``gap`` above full rank, a little more with each seed."""
    losses = {
        name: 5 + (0 if cell.method.is_full_rank else gap * (1 + 0.01 * cell.seed)) for name, cell in runs.cells.items()
    }
    return with_losses(runs, losses)


def told(runs) -> dict[str, Any]:
    """What each part of the paper and of the first screen says of the losses."""
    found, screen = values(runs, Report(title="", published="off")), outcome(runs)
    header, *rows = found["final"]
    claim = next(one for one in found["claims"] if one["claim"] == CLAIM)
    return {
        "abstract": " ".join(found["abstract"]),
        "results": " ".join(found["results"]),
        "caption": found["captions"]["gap_over_training"],
        "screen": " ".join(screen["answer"]),
        "gaps": " ".join(row[header.index("over full rank")] for row in rows),
        "matrix": " ".join(cell for row in screen["losses"][1:] for cell in row[1:]),
        "readings": {row[-1] for row in claim["rows"]},
        "limits": " ".join(found["limits"]),
    }


@pytest.mark.parametrize(
    ("seeds", "gap", "said", "reading"),
    [
        (1, 0.3, HIGHER, "undecided, one seed, as claimed"),
        (3, 0.3, HIGHER, "confirmed"),
        (3, -0.3, LOWER, "contradicted"),
        (3, 0.0, LEVEL, "contradicted"),
    ],
)
def test_abstract_results_claims_and_screen_agree(study, seeds, gap, said, reading):
    parts = told(with_gap(study(seeds), gap))
    for part in ("abstract", "results", "caption", "screen"):
        assert [one for one in (HIGHER, LOWER, LEVEL) if one in parts[part]] == [said], part
        assert ("(one seed)" in parts[part]) is (seeds == 1), part
    assert ("−0.30" in parts["gaps"]) is (gap < 0) and ("−0.30" in parts["matrix"]) is (gap < 0)
    assert parts["readings"] == {reading}
    assert ("one seed" in parts["limits"]) is (seeds == 1)


def test_what_diverged_is_told_everywhere_and_compared_nowhere(study, monkeypatch):
    runs = with_gap(study(1), 0.3)
    lost = "small-relora-s1"
    runs.losses.nats[lost][:] = np.nan
    monkeypatch.setattr(type(runs), "diverged", {lost: 30})
    found, screen = values(runs, Report(title="", published="off")), outcome(runs)
    for part in (found["abstract"], found["results"], screen["limits"]):
        assert "1 of 6 cells diverged: small, ReLoRA" in " ".join(part)
    assert screen["losses"][2][-1] == "diverged" and screen["diverged"] == 1
    header, *rows = found["final"]
    (row,) = [row for row in rows if row[:2] == ["small", "ReLoRA"]]
    assert row[header.index("diverged")] == "1" and row[header.index("over full rank")] == "–"
