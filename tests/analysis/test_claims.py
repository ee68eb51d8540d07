"""The claims ledger: a verdict follows from a test, and every claim is judged for every method with resets."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from readings import MANIFEST, held_out_of, write_results
from relora_study.analysis.claims import (
    CONFIRMED,
    CONTRADICTED,
    UNDECIDED,
    UNTESTABLE,
    _judged,
    _over_seeds,
    claims,
)
from relora_study.analysis.effects import EQUAL, HIGHER, LOWER, Effect
from relora_study.analysis.losses import Losses
from relora_study.analysis.results import Runs, open_runs
from relora_study.config import check
from relora_study.config.benchmark_names import BLIMP, PALOMA
from relora_study.config.settings import experiments_of
from relora_study.storage.files import write_csv, write_json
from scipy.stats import ttest_1samp
from studies import write_yaml


def by_seed(*differences: float) -> pd.Series:
    return pd.Series(differences, pd.Index(range(42, 42 + len(differences)), name="seed"), dtype=float)


@pytest.mark.parametrize(
    ("differences", "claimed", "verdict"),
    [
        ([0.10, 0.12, 0.11], HIGHER, CONFIRMED),
        ([-0.10, -0.12, -0.11], HIGHER, CONTRADICTED),
        ([-0.10, -0.12, -0.11], LOWER, CONFIRMED),
        ([0.30, -0.10, 0.05], HIGHER, UNDECIDED),
        ([0.30], HIGHER, f"{UNDECIDED}, one seed, as claimed"),
        ([0.30], LOWER, f"{UNDECIDED}, one seed, not as claimed"),
        ([], HIGHER, UNDECIDED),
    ],
)
def test_students_test_decides(differences, claimed, verdict):
    judged = _over_seeds(by_seed(*differences), claimed)
    assert judged.verdict == verdict
    if len(differences) > 1:
        oracle = ttest_1samp(differences, 0)
        interval = oracle.confidence_interval(0.95)
        assert (judged.low, judged.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
        assert judged.p == pytest.approx(oracle.pvalue)


@pytest.mark.parametrize(("shift", "verdict"), [(1.001, CONFIRMED), (0.999, UNDECIDED)])
def test_a_verdict_turns_where_the_end_of_the_interval_passes_the_margin(shift, verdict):
    spread = np.array([-0.01, 0.0, 0.01])
    half = ttest_1samp(spread, 0).confidence_interval(0.95).high
    below, above = (Effect.over_seeds(0.05 + side * shift * half + spread) for side in (-1, 1))
    assert _judged(below, {LOWER, EQUAL}, 3, 0.05).verdict == verdict
    assert _judged(above, {HIGHER}, 3, 0.05).verdict == verdict


def test_two_sizes_of_one_seed_confirm_nothing():
    sizes = pd.MultiIndex.from_tuples([("tiny", 42), ("small", 42)], names=["size", "seed"])
    judged = _over_seeds(pd.Series([0.10, 0.11], index=sizes), HIGHER)
    assert (
        judged.verdict == f"{UNDECIDED}, one seed, as claimed"
        and judged.value == pytest.approx(0.105)
        and np.isnan(judged.low)
    )
    assert _over_seeds(by_seed(0.10, 0.11), HIGHER).verdict == CONFIRMED


def test_every_claim_is_judged_for_every_method_with_resets(unchanged):
    table = claims(unchanged)
    restarted = {cell.method_name for cell in unchanged.cells.values() if cell.method.reset_period}
    assert (table.groupby("claim").size() == len(restarted)).all() and set(table.method) == restarted
    origins = ["abstract v1 and v2", "abstract v2", "abstract v1", "third party's summary page"]
    assert table.origin.drop_duplicates().tolist() == origins, "what the authors do not claim comes last"
    assert table.verdict.str.fullmatch(
        f"({CONFIRMED}|{CONTRADICTED}|{UNDECIDED}, one seed, (not )?as claimed|{UNTESTABLE}: .+)"
    ).all()
    widening = table[table.claim.str.contains("widens")]
    assert (widening.verdict == f"{UNTESTABLE}: fewer than three sizes").all(), "two sizes always lie on a line"


def test_the_published_evidence_is_the_papers_table(unchanged):
    evidence = claims(unchanged).drop_duplicates("claim").set_index("claim").published_evidence
    assert evidence["ReLoRA has a higher loss than full rank"] == "+0.088 (tiny), +0.393 (small)"
    assert evidence["ReLoRA has a lower BLiMP accuracy than full rank"] == "-0.0268 (tiny), -0.0706 (small)"
    ranks = evidence["ReLoRA reinforces rank deficiencies of small models"]
    assert ranks.endswith("0.947 and 0.874 (tiny), 0.959 and 0.863 (small)")
    early = evidence["ReLoRA induces ill-conditioned updates early in training"]
    assert early.endswith("229 and 20,072 (tiny), 374 and 88,184 (small)")


SEEDS = [42, 43, 44]


@pytest.fixture(scope="module")
def three_seeds(raw, tmp_path_factory) -> Runs:
    folder = tmp_path_factory.mktemp("three seeds")
    write_results(raw | {"study": {"sizes": ["tiny", "small"], "methods": ["full", "relora"], "seeds": SEEDS}}, folder)
    return open_runs(folder)


@pytest.fixture
def ledger(three_seeds):
    """A function: the ledger of full rank and ReLoRA at three seeds, after ``change`` of each cell's tables."""

    def changed(change, sizes=("tiny", "small"), **keys) -> pd.DataFrame:
        cells = {name: cell for name, cell in three_seeds.cells.items() if cell.size_name in sizes}
        runs = replace(three_seeds, cells=cells, **keys)
        for file in ("evaluation.csv", "dynamics.csv"):
            parts = [
                (cells[name], rows.copy()) for name, rows in three_seeds.table(file).groupby("cell") if name in cells
            ]
            runs._read_already[file] = pd.concat([change(cell, rows) for cell, rows in parts])
        if hasattr(change, "over"):
            nats = {name: three_seeds.losses.nats[name] + 100 * change.over(cell) for name, cell in cells.items()}
            runs.__dict__["losses"] = Losses(three_seeds.losses.tokens, nats)
        return claims(runs).set_index("claim")

    return changed


def with_losses(*losses: float):
    """A change that sets the held-out loss of ReLoRA to ``losses`` over full rank's by seed; accuracy falls with it."""

    def over(cell) -> float:
        return bool(cell.method.rank) * (losses[SEEDS.index(cell.seed)] + 1e-4 * (cell.size_name == "tiny"))

    def change(cell, rows: pd.DataFrame) -> pd.DataFrame:
        if "suite" in rows:
            rows.loc[rows.metric == "token_perplexity", "value"] += 100 * over(cell)
            rows.loc[rows.metric == "accuracy", "value"] = 0.6 - 0.5 * over(cell)
        return rows

    change.over = over
    return change


def test_other_pairs_than_blimp_and_other_texts_than_paloma_judge_no_claim_about_them(ledger):
    claimed = [
        "ReLoRA has a lower BLiMP accuracy than full rank",
        "ReLoRA has a higher perplexity on Paloma than full rank",
    ]
    ours = ledger(with_losses(0.5, 0.51, 0.52)).loc[claimed]
    assert ours.verdict.tolist() == [f"{UNTESTABLE}: other pairs", f"{UNTESTABLE}: other texts"]
    assert ours.value.tolist() == pytest.approx([-0.255, 51], rel=0.01) and ours.p.isna().all()
    assert ours.measure.str.contains("templated minimal pairs|held-out documents").all()


def test_blimp_and_paloma_judge_them(ledger):
    claimed = [
        "ReLoRA has a lower BLiMP accuracy than full rank",
        "ReLoRA has a higher perplexity on Paloma than full rank",
    ]
    theirs = ledger(with_losses(0.5, 0.51, 0.52), suite=BLIMP, texts=PALOMA).loc[claimed]
    assert theirs.verdict.tolist() == [CONFIRMED, CONFIRMED]


def test_a_verdict_holds_only_after_holms_correction(ledger):
    """Two claims test this loss against the margin, and the third test's p is 0: Holm doubles the p of the two."""
    losses = np.array([0.17, 0.24, 0.31])
    row = ledger(with_losses(*losses), sizes=["tiny"]).loc["ReLoRA has a higher loss than full rank"]
    p = ttest_1samp(losses + 1e-4, 0.03).pvalue
    assert row.p == pytest.approx(p) and 0.025 < p < 0.05 and row.value_low > 0.03
    assert row.p_holm == pytest.approx(2 * p) and row.verdict == UNDECIDED
    clear = ledger(with_losses(*(losses + 0.2)), sizes=["tiny"]).loc["ReLoRA has a higher loss than full rank"]
    assert clear.p_holm < 0.05 and clear.verdict == CONFIRMED


@pytest.mark.parametrize(("loss", "verdict"), [(0.031, CONFIRMED), (0.029, CONTRADICTED)])
def test_a_loss_within_the_margin_is_no_higher_loss(ledger, loss, verdict):
    table = ledger(with_losses(loss - 1e-5, loss - 5e-5, loss - 9e-5))
    claimed = [
        "ReLoRA has a higher loss than full rank",
        "Low-rank updates may not transfer to pretraining small models",
    ]
    assert table.loc[claimed].verdict.tolist() == [verdict] * 2


@pytest.mark.parametrize(("power", "verdict"), [(0.5, CONFIRMED), (-0.5, CONTRADICTED)])
def test_early_updates_are_read_exactly_beside_full_ranks_gradients(ledger, power, verdict):
    """Only the first quarter of 600 steps counts, and a reading that divides by 0 does not."""

    def change(cell, rows: pd.DataFrame) -> pd.DataFrame:
        if "quantity" not in rows:
            return rows
        ours = (rows.component == "w2") & (rows.metric == "condition_number")
        noise = 0.01 * (cell.seed - 43) + 0.002 * (cell.size_name == "tiny")
        rows.loc[ours & (rows.quantity == "gradients"), "value"] = 100.0
        rows.loc[ours & (rows.quantity == "updates_exact"), "value"] = 100 * 10 ** (power + noise)
        rows.loc[ours & (rows.quantity == "updates_exact") & (rows.step == 60), "value"] = np.inf
        rows.loc[ours & (rows.quantity == "updates_exact") & (rows.step > 150), "value"] = 1.0 if power > 0 else 1e9
        return rows

    row = ledger(change).loc["ReLoRA induces ill-conditioned updates early in training"]
    assert row.value == pytest.approx(power + 0.001) and row.verdict == verdict


def test_updates_that_no_early_checkpoint_reads_are_untestable(ledger):
    def change(cell, rows: pd.DataFrame) -> pd.DataFrame:
        return rows[(rows.quantity != "updates_exact") | (rows.step > 150)] if "quantity" in rows else rows

    row = ledger(change).loc["ReLoRA induces ill-conditioned updates early in training"]
    assert row.verdict == f"{UNTESTABLE}: no such reading in the first 25% of the steps"


def test_ranks_of_larger_models_are_those_of_sizes_beyond_the_papers(ledger, raw, monkeypatch):
    def change(cell, rows: pd.DataFrame) -> pd.DataFrame:
        if "quantity" in rows and cell.method.rank:
            per = (rows.quantity == "weights") & (rows.metric == "per")
            rows.loc[per, "value"] += (0.1 if cell.size_name == "small" else -0.1) + 0.001 * (cell.seed - 43)
        return rows

    small = ledger(change).loc["ReLoRA can expand ranks in larger models"]
    assert small.value == pytest.approx(0.1) and small.verdict == f"{UNTESTABLE}: no size beyond the paper's"
    widths = {"tiny": 96, "small": raw["sizes"]["small"]["d_model"] - 1}
    monkeypatch.setattr("relora_study.analysis.claims.WIDTHS", widths)
    assert ledger(change).loc["ReLoRA can expand ranks in larger models"].verdict == CONFIRMED


@pytest.mark.parametrize(
    ("trainable", "above", "verdict"),
    [
        (0.49, 0.029, CONFIRMED),
        (0.49, 0.031, CONTRADICTED),
        (0.51, 0.029, f"{UNTESTABLE}: at every size, more than 50% of the parameters train"),
    ],
)
def test_comparable_is_within_a_margin_where_few_parameters_train(ledger, monkeypatch, trainable, above, verdict):
    monkeypatch.setattr(Runs, "manifest", lambda runs, cell: MANIFEST | {
        "trainable_parameters": 100 * (trainable if cell.method.rank else 1)})  # fmt: skip
    table = ledger(with_losses(above - 1e-5, above - 5e-5, above - 9e-5))
    assert table.loc["Performance is comparable with far fewer resources"].verdict == verdict


def test_what_trains_at_a_size_is_arithmetic_of_shapes(results):
    """From the published counts: 89 % of the parameters train at tiny, 62 % at small."""
    table = claims(results).set_index("claim").loc["Smaller models gain more efficiency than larger ones"]
    counts = {name: results.manifest(cell)["trainable_parameters"] for name, cell in results.cells.items()}
    shares = {size: counts[f"{size}-relora-s42"] / counts[f"{size}-full-s42"] for size in ("tiny", "small")}
    row = table[table.method == "relora"].iloc[0]
    assert row.value == pytest.approx(shares["small"] - shares["tiny"])
    assert row.verdict == f"{UNTESTABLE}: arithmetic of shapes" and np.isnan(row.value_low)


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
    assert accumulated(0.2, 0.0, -0.2) == UNDECIDED
    assert accumulated(0.027, 0.0271, 0.0269) == CONFIRMED
    assert accumulated(0.033, 0.0331, 0.0329) == CONTRADICTED
    assert accumulated(0.01, np.nan, 0.0) == CONTRADICTED, "one of them diverged"
