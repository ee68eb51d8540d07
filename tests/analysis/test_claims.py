"""The claims ledger: a verdict follows from an interval, and every claim is judged for every method with resets."""

import numpy as np
import pandas as pd
import pytest
from readings import MANIFEST, held_out_of, write_results
from relora_study.analysis.claims import (
    CONFIRMED,
    CONTRADICTED,
    NOT_SHOWN,
    UNTESTABLE,
    _judged,
    claims,
)
from relora_study.analysis.results import open_runs
from relora_study.config import check
from relora_study.config.settings import experiments_of
from relora_study.storage.files import write_csv, write_json
from scipy.stats import ttest_1samp
from studies import write_yaml


@pytest.mark.parametrize(
    ("differences", "claimed", "verdict"),
    [
        ([0.10, 0.12, 0.11], 1, CONFIRMED),
        ([-0.10, -0.12, -0.11], 1, CONTRADICTED),
        ([-0.10, -0.12, -0.11], -1, CONFIRMED),
        ([0.30, -0.10, 0.05], 1, NOT_SHOWN),
        ([0.30], 1, NOT_SHOWN),
        ([], 1, NOT_SHOWN),
    ],
)
def test_the_interval_decides(differences, claimed, verdict):
    judged = _judged(pd.Series(differences, dtype=float), claimed)
    assert judged.verdict == verdict
    if len(differences) > 1:
        oracle = ttest_1samp(differences, 0).confidence_interval(0.95)
        assert (judged.low, judged.high) == (pytest.approx(oracle.low), pytest.approx(oracle.high))


def test_two_sizes_of_one_seed_confirm_nothing():
    sizes = pd.MultiIndex.from_tuples([("tiny", 42), ("small", 42)], names=["size", "seed"])
    judged = _judged(pd.Series([0.10, 0.11], index=sizes), 1)
    assert judged.verdict == NOT_SHOWN and judged.value == pytest.approx(0.105) and np.isnan(judged.low)
    seeds = pd.MultiIndex.from_tuples([("tiny", 42), ("tiny", 43)], names=["size", "seed"])
    assert _judged(pd.Series([0.10, 0.11], index=seeds), 1).verdict == CONFIRMED


def test_every_claim_is_judged_for_every_method_with_resets(unchanged):
    table = claims(unchanged)
    restarted = {cell.method_name for cell in unchanged.cells.values() if cell.method.reset_period}
    assert (table.groupby("claim").size() == len(restarted)).all() and set(table.method) == restarted
    assert set(table.origin) == {"abstract", "public summary"}
    widening = table[table.claim.str.contains("widens")]
    assert (widening.verdict == UNTESTABLE).all(), "two sizes always lie on a line"


def test_the_published_evidence_is_the_papers_table(unchanged):
    evidence = claims(unchanged).drop_duplicates("claim").set_index("claim").published_evidence
    assert evidence["ReLoRA has a higher loss than full rank"] == "+0.088 (tiny), +0.393 (small)"
    assert evidence["ReLoRA has a lower BLiMP accuracy than full rank"] == "-0.0268 (tiny), -0.0706 (small)"


def test_smaller_models_save_a_smaller_share_of_parameters(results):
    """From the published counts: 89 % of the parameters train at tiny, 61 % at small."""
    table = claims(results).set_index("claim").loc["Smaller models gain more efficiency than larger ones"]
    counts = {name: results.manifest(cell)["trainable_parameters"] for name, cell in results.cells.items()}
    shares = {size: counts[f"{size}-relora-s42"] / counts[f"{size}-full-s42"] for size in ("tiny", "small")}
    row = table[table.method == "relora"].iloc[0]
    assert row.value == pytest.approx(shares["small"] - shares["tiny"])
    assert row.verdict == (CONFIRMED if row.value > 0 else CONTRADICTED) and np.isnan(row.value_low)


@pytest.fixture
def accumulated(raw, tmp_path):
    """A function: the verdict on gradient accumulation where one micro-batch ends so far above eight, by seed."""

    def verdict(*differences: float) -> str:
        results, grid = tmp_path / f"{differences}", {"grid": {"micro_batch_size": [8, 1]}}
        seeds = [42 + number for number in range(len(differences))]
        chosen = {"sizes": ["tiny"], "methods": ["full", "relora"], "seeds": seeds}
        study = {**raw, "study": chosen, "sweeps": {"batches": {"space": grid}}}
        write_results(study, results)
        for name, cell in experiments_of(check(study, [])).cells.items():
            place, above = results / "cells" / name, dict(zip(seeds, differences, strict=True))[cell.seed]
            write_yaml(place / "config.yaml", cell.model_dump())
            loss = 6.0 + above * (cell.train.micro_batch_size == 8)
            ended = {"cell": name, "steps": 600, "resets": [], "final_sha256": "0" * 64}
            ended |= {"diverged_at": None if np.isfinite(loss) else 300}
            write_json(place / "manifest.json", MANIFEST | ended)
            write_csv(place / "timing.csv", pd.DataFrame({"step": [600], "seconds": [60.0]}))
            write_csv(place / "held_out.csv", held_out_of(loss))
        table = claims(open_runs(results))
        return str(table[table.claim.str.contains("accumulation")].verdict.item())

    return verdict


def test_sweeps_over_the_micro_batch_judge_gradient_accumulation(accumulated):
    assert accumulated(0.01, 0.0, -0.01) == CONFIRMED
    assert accumulated(0.3, 0.31, 0.29) == CONTRADICTED
    assert accumulated(0.2, 0.0, -0.2) == NOT_SHOWN
    assert accumulated(0.01, np.nan, 0.0) == CONTRADICTED, "one of them diverged"
