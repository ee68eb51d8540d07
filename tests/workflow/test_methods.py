"""The real DAG on methods beyond ReLoRA: each stage reads what methods without adapters, or without resets, train."""

import numpy as np
import pandas as pd
import pytest
from pypdf import PdfReader
from studies import lay_out, snakemake, write_yaml

pytestmark = [pytest.mark.end_to_end, pytest.mark.long]
OTHER = {"rank": 0, "targets": ["q_proj", "v_proj", "o_proj", "down_proj"], "schedule": "linear"}
SCHEDULE = {"warmup_steps": 2, "horizon_steps": 100}
OVERLAY = {
    "extends": "tests/tiny.yaml",
    "study": {"methods": ["full", "galore", "factorized", "lora"]},
    "methods": {
        "galore": OTHER | SCHEDULE | {"update": "galore", "projection_rank": 4, "projection_period": 6},
        "factorized": OTHER | SCHEDULE | {"factor_rank": 4},
        "lora": OTHER | SCHEDULE | {"rank": 4, "alpha": 8},
    },
    "sweeps": {"ranks": {"methods": ["galore"], "space": {"grid": {"projection_rank": [2, 6]}}}},
}


def test_a_study_of_methods_beyond_relora_runs_from_corpus_to_paper(tmp_path):
    folder = lay_out(tmp_path / "study")
    write_yaml(folder / "methods.yaml", OVERLAY)
    done = snakemake(folder, configs=("methods.yaml",))
    assert done.returncode == 0, done.stdout + done.stderr
    results = folder / "results"
    for method in OVERLAY["study"]["methods"]:
        dynamics = pd.read_csv(results / f"cells/tiny-{method}-s1/dynamics.csv", keep_default_na=False)
        assert {"weights", "effective_weights", "updates", "gradients", "net_update"} <= set(dynamics.quantity)
        evaluation = pd.read_csv(results / f"cells/tiny-{method}-s1/evaluation.csv")
        assert set(evaluation.step) == {0, 8, 16, 20} and np.isfinite(evaluation.value).all()
        ranks = dynamics[(dynamics.quantity == "effective_weights") & (dynamics.component == "w2")]
        effective = ranks[ranks.metric == "effective_rank"].value.astype(float)
        assert (effective <= 4.01).all() == (method == "factorized")
    responses = pd.read_csv(results / "tables/experiment_ranks.csv")
    assert len(responses) == 2
    text = "".join(page.extract_text() for page in PdfReader(results / "paper.pdf").pages)
    assert "GaLore" in text and "factorized" in text
    published = pd.read_csv(results / "tables/published_vs_replicated.csv")
    assert set(published.cell) <= {"tiny-full-s1", "tiny-lora-s1"}
