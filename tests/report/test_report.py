"""The report: figures, tables and the paper from hand-made readings, so that a wrong column or cell would show."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from relora_study.config import cells, check
from relora_study.errors import UserError
from relora_study.files import read_yaml, write_csv, write_json, write_yaml
from relora_study.report.figures import FIGURES
from relora_study.report.load import open_results, published_readings
from relora_study.report.paper import values
from relora_study.report.significance import compare
from relora_study.report.style import finish
from relora_study.report.tables import TABLES, write_table
from scipy import stats

ROOT = Path(__file__).parents[2]
STEPS = range(0, 601, 60)


def log_of(cell) -> pd.DataFrame:
    steps, adapted = np.arange(1, 601), bool(cell.method.rank)
    norm = np.where(steps <= 61, 0.0 if cell.method.adapter_initialization == "zero" else 0.5, 1.0)
    table = {
        "step": steps,
        "tokens": steps * 1024,
        "loss": 8 - steps / 200,
        "learning_rate": 1e-3,
        "gradient_norm": 1.0,
    }
    resets = np.isin(steps, range(61, 601, 60))
    return pd.DataFrame(table | {"adapter_gradient_norm": norm if adapted else None, "reset": adapted * resets})


def evaluation_of(right: float) -> pd.DataFrame:
    rows = []
    for step in STEPS:
        for item in ("a.com", "b.com", "overall", "macro_average"):
            for metric in ("token_perplexity", "mean_text_perplexity", "bits_per_byte"):
                rows.append((step, "perplexity", item, metric, 900 - step))
        for item in ("overall", "phenomenon/agreement", "paradigm/is_are"):
            pairs = {"accuracy": right, "accuracy_low": right - 0.1, "accuracy_high": right + 0.1, "pairs": 100.0}
            rows += [(step, "minimal_pairs", item, metric, value) for metric, value in pairs.items()]
        rows.append((step, "held_out", "fixed_batch", "loss", 8 - step / 300))
    return pd.DataFrame(rows, columns=["step", "suite", "item", "metric", "value"])


def judged_of(right: float) -> pd.DataFrame:
    """A hundred pairs in five paradigms, the first of which are judged right."""
    good = np.where(np.arange(100) < 100 * right, 1.0, -1.0)
    return pd.DataFrame({"UID": [f"p{number % 5}" for number in range(100)], "good": good, "bad": 0.0})


def dynamics_of(lost: float) -> pd.DataFrame:
    steps = [*STEPS, *(step + 3 for step in STEPS if 0 < step < 600)]
    rows = [
        (step, component, layer, quantity, metric, 1 / (1 + step + layer), "")
        for step in steps
        for component in ("w2", "ov_authors", "v", "o")
        for layer in range(4)
        for quantity in ("weights", "updates")
        for metric in ("per", "condition_number")
    ]
    later = {
        "net_update": ["effective_rank", "overlap_left", "overlap_right"],
        "cumulative_update": ["effective_rank"],
        "updates_exact": ["condition_number"],
    }
    rows += [(s, "w2", 0, quantity, m, 1e-3, "") for s in STEPS for quantity, names in later.items() for m in names]
    rows += [
        (s, "layer_output", 0, "hidden_states", m, 0.5, "") for s in STEPS for m in ("cka_with_last", "mean_cosine")
    ]
    rows += [(s, "model", -1, "merge", m, lost, "") for s in STEPS for m in ("update_lost", "loss_jump")]
    return pd.DataFrame(rows, columns=["step", "component", "layer", "quantity", "metric", "value", "reason"])


@pytest.fixture
def results(raw, tmp_path):
    study = check(raw, [])
    write_yaml(tmp_path / "settings/study.yaml", study.study.model_dump())
    for right, (name, cell) in zip((0.8, 0.5, 0.6) * 2, cells(study).items(), strict=True):
        folder = tmp_path / "cells" / name
        write_yaml(folder / "config.yaml", cell.model_dump())
        write_csv(folder / "log.csv", log_of(cell))
        write_csv(folder / "timing.csv", pd.DataFrame({"step": range(1, 601), "seconds": 0.1}))
        write_csv(folder / "evaluation.csv", evaluation_of(right))
        write_csv(folder / "dynamics.csv", dynamics_of(0.5 if cell.method.merge == "unscaled" else 0.0))
        (folder / "evaluation").mkdir()
        judged_of(right).to_parquet(folder / "evaluation/step-000600-0-pairs.parquet")
        manifest = {"parameters": 100, "trainable_parameters": 40, "tokens": 614400, "device": "cpu", "threads": 1}
        write_json(folder / "manifest.json", manifest | {"peak_memory_bytes": 2**30})
    return open_results(tmp_path / "settings/study.yaml", tmp_path / "cells")


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_with_every_method(results, tmp_path, name):
    figure = FIGURES[name](results)
    labels = {label for axes in figure.axes for label in axes.get_legend_handles_labels()[1]}
    assert labels >= {"full", "relora", "relora_released"}
    assert all(len(line.get_xdata()) for axes in figure.axes for line in axes.get_lines())
    pyplot.close(figure)


def test_the_same_figure_is_the_same_bytes(results, tmp_path):
    for name in ("one", "two"):
        finish(FIGURES["training_curves"](results), tmp_path / name)
    assert (tmp_path / "one.pdf").read_bytes() == (tmp_path / "two.pdf").read_bytes()
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_written_three_ways(results, tmp_path, name):
    write_table(TABLES[name](results), tmp_path / name)
    rows = pd.read_csv(tmp_path / f"{name}.csv")
    assert len(rows) > 0
    assert (tmp_path / f"{name}.md").read_text().count("\n") == len(rows) + 2
    assert r"\toprule" in (tmp_path / f"{name}.tex").read_text()


def test_full_rank_is_read_at_the_multiple_and_relora_after_it(results):
    rows = published_readings(results, "weights", "per")
    value = rows.set_index(["cell", "component", "layer", "step"]).value
    assert value["tiny-full-s42", "w2", 0, 60] == pytest.approx(1 / 61)
    assert value["tiny-relora-s42", "w2", 0, 120] == pytest.approx(1 / 124)
    assert value["tiny-relora-s42", "w2", 0, 0] == 1.0


def test_the_published_test_is_the_textbook_formula(results):
    row = TABLES["significance"](results).iloc[0]
    pooled = (80 + 50) / 200
    z = (0.8 - 0.5) / np.sqrt(pooled * (1 - pooled) * 2 / 100)
    assert (row.cell, row.against) == ("tiny-relora-s42", "tiny-full-s42")
    assert row.z == pytest.approx(z) and row.p == pytest.approx(stats.norm.sf(z))
    assert row.mcnemar_p == pytest.approx(2 * 0.5**30), "30 pairs differ, all in one direction"
    assert row.difference == pytest.approx(0.3) == row.difference_low == row.difference_high
    assert row.chance_p == pytest.approx(1.0)


def test_holm_counts_only_paradigms_that_survive_it():
    uid = [name for name in "abc" for _ in range(40)]
    other = pd.DataFrame({"UID": uid, "good": -1.0, "bad": 0.0})
    better = other.assign(good=[1.0] * 40 + [1.0] * 6 + [-1.0] * 34 + [-1.0] * 40)
    found = compare(better, other)
    assert 2 * 0.5**6 < 0.05 < 2 * 2 * 0.5**6, "b passes alone, and not beside a and c"
    assert (found["paradigms_better"], found["paradigms_worse"]) == (1, 0)
    assert found["difference"] == pytest.approx(46 / 120)
    assert found["difference_low"] < found["difference"] < found["difference_high"]


def test_only_the_released_variant_is_called_dead(results):
    dead = TABLES["dead_first_cycle"](results).set_index("cell").dead
    assert dead.to_dict() == {
        f"{size}-{m}-s42": m != "relora" for size in ("tiny", "small") for m in ("relora", "relora_released")
    }


def test_the_audits_verdicts_follow_the_readings(results):
    found = TABLES["audit"](results)
    verdict = found.set_index(["cell", "measure"]).verdict
    assert found.value.notna().all()
    for name, dead, lost in (("small-relora-s42", False, False), ("small-relora_released-s42", True, True)):
        own = " / ".join(verdict[name])
        assert ("dead:" in own, "50% of each update is lost" in own) == (dead, lost)
        assert ("the loss jumps" in own) == lost
        assert "the published reading is round-off" not in own or found.value.max() > 100


def test_the_papers_sentences_follow_the_numbers(results):
    found = " ".join(values(results, "T")["findings"])
    assert "relora_released-s42: the adapters' gradient norm is exactly zero" in found
    assert "small-relora-s42: the adapters receive gradients" in found
    assert "minimal pairs 0.500 against 0.800" in found and "is shown at the 5 % level" in found
    json.dumps(values(results, "T"))


def test_every_figure_and_table_has_a_caption_and_no_caption_is_left_over():
    captions = read_yaml(ROOT / "workflow/report/captions.yaml")
    assert list(captions["figures"]) == list(FIGURES)
    assert list(captions["tables"]) == list(TABLES)


def test_a_missing_reading_names_the_file(results):
    (results.folder / "tiny-full-s42/log.csv").unlink()
    with pytest.raises(UserError, match=r"tiny-full-s42/log\.csv"):
        results.table("log.csv")
