"""Numbers, captions and sentences: what a reader sees follows the data."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from pypdf import PdfReader
from readings import with_losses
from relora_study.analysis.audit import audit
from relora_study.analysis.comparison import published_vs_replicated
from relora_study.analysis.losses import Losses
from relora_study.analysis.published import Published
from relora_study.analysis.results import Runs
from relora_study.config import Evaluation, Report, cells, check
from relora_study.config.benchmark_names import suite_name
from relora_study.report.captions import captions, chapters
from relora_study.report.figures import FIGURES
from relora_study.report.numbers import cell_labels, plain, readable, with_interval
from relora_study.report.paper import _outcomes, published_values, typeset, values
from relora_study.report.paper import results as results_table
from relora_study.report.sentences import abstract, limits, published, scale
from relora_study.report.tables import PUBLISHED_TABLES, TABLES
from relora_study.storage.files import read_yaml
from scipy import stats
from studies import ROOT


@pytest.mark.parametrize(
    ("value", "low", "high", "words"),
    [
        (5.69612, 5.62345, 5.76879, "5.70 [5.62, 5.77]"),
        (0.31583, 0.30485, 0.32681, "0.316 [0.305, 0.327]"),
        (-0.0001, -0.03, 0.03, "0.000 [−0.030, 0.030]"),
        (381.2, 366.0, 399.0, "381 [366, 399]"),
        (0.65043, 0.6468, 0.6540, "0.650 [0.647, 0.654]"),
        (2.0, 2.0, 2.0, "2"),
        (1234.5, float("nan"), 3.0, "1,234"),
    ],
)
def test_a_value_is_rounded_to_the_digits_that_its_uncertainty_carries(value, low, high, words):
    assert with_interval(value, low, high) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (11282784, "11,282,784"),
        (4.17, "4.17"),
        (205.5, "205.5"),
        (-0.25, "−0.250"),
        (1.2e-24, "1.2e-24"),
        (3.31e-5, "3.3e-5"),
        (330000000.5, "3.3e8"),
        (float("nan"), "–"),
        (True, "yes"),
    ],
)
def test_plain_numbers(value, words):
    assert plain(value) == words


def test_cells_and_intervals_are_read_in_words():
    table = pd.DataFrame({"cell": ["paper_tiny-relora_zero2-s42"], "x": [1.5], "x_low": [1.0], "x_high": [2.0]})
    assert readable(table).to_dict("list") == {"cell": ["paper tiny, ReLoRA under ZeRO-2"], "x": ["1.5 [1.0, 2.0]"]}
    assert cell_labels(pd.Series(["a-my_own-s1", "a-my_own-s2"])).tolist() == ["a, my own, seed 1", "a, my own, seed 2"]


def test_every_figure_and_table_has_a_caption_and_no_caption_is_left_over():
    captions = read_yaml(ROOT / "workflow/report/captions.yaml")
    assert list(captions["figures"]) == list(FIGURES)
    assert list(captions["tables"]) == list(TABLES)
    assert list(captions["published"]["tables"]) == list(PUBLISHED_TABLES)
    assert sorted(chapters()) == sorted(FIGURES)


def test_the_papers_tables_come_from_tables_that_are_made():
    """A table cannot be without a source (paper/style.typ), and a source that is a table is linked."""
    made = {"paper": TABLES, "parts": TABLES, "published": PUBLISHED_TABLES}
    for name, tables in made.items():
        sources = re.findall(r"tables/(\w+)\.csv", (ROOT / f"paper/{name}.typ").read_text())
        assert sources and set(sources) <= set(tables)


def test_captions_name_the_suite_and_say_what_bands_are(raw):
    study = check(raw, [])
    one = captions(cells(study), False, suite_name(study.evaluation, study.report))["figures"]
    assert "not BLiMP" in one["blimp_by_phenomenon"] and "seeds" not in one["training_curves"]
    assert "Bands: 95 % bootstrap intervals over layers. From cells/*/dynamics.csv." in one["per_weights"]
    assert "published curves of the paper" not in one["per_weights"]
    several = check(raw | {"study": {**raw["study"], "seeds": [1, 2, 3]}}, [])
    real = study.evaluation.model_dump() | {"minimal_pairs": {**raw["evaluation"]["minimal_pairs"], "source": "hub"}}
    many = captions(cells(several), True, suite_name(Evaluation.model_validate(real), study.report))["figures"]
    assert "Accuracy on BLiMP by" in many["blimp_by_phenomenon"] and "Means over 3 seeds" in many["training_curves"]
    assert "layers and seeds" in many["per_weights"] and "published curves of the paper" in many["per_weights"]


def test_the_abstract_follows_the_numbers(unchanged):
    found, theirs = audit(unchanged), audit(Published())
    higher = dict(zip(unchanged.cells, np.arange(6.0), strict=True))
    said = " ".join(abstract(with_losses(unchanged, higher), found, theirs))
    assert "ReLoRA and ReLoRA as released end at a higher held-out loss than full rank, by 1.00 to 2.00" in said
    assert "the adapters of ReLoRA as released receive no gradient" in said
    lower = {name: -loss for name, loss in higher.items()}
    turned = " ".join(abstract(with_losses(unchanged, lower), found[found.value != 0], theirs))
    assert "ReLoRA and ReLoRA as released end at a lower held-out loss than full rank" in turned
    assert "no gradient" not in turned


def test_the_published_sentence_names_what_its_audit_finds():
    found = audit(Published())
    assert "bfloat16" in published(found)[0] and "grows from cycle to cycle" in published(found)[0]
    clean = found.assign(outcome="other")
    assert published(clean) == ["The published curves show none of the faults we tested."]
    reworded = found.assign(measure="another label", verdict="other words")
    assert published(reworded) == published(found), "labels and verdicts are for readers alone"


@pytest.mark.parametrize(("correlation", "said"), [(0.51, "best in ReLoRA"), (0.49, "in none of our methods; ReLoRA")])
def test_a_shape_follows_the_published_one_from_a_correlation_of_a_half(unchanged, correlation, said):
    found = audit(unchanged)
    rows = found[(found.key == "correlation") & found.cell.str.startswith("tiny")]
    rows = rows.assign(value=np.where(rows.cell == "tiny-relora-s42", correlation, 0.1))
    assert said in " ".join(abstract(unchanged, rows, audit(Published())))


@pytest.mark.parametrize(("seeds", "few"), [(9, True), (10, False)])
def test_a_bootstrap_over_fewer_than_ten_seeds_is_called_one_of_few(unchanged, seeds, few):
    cell = next(iter(unchanged.cells.values()))
    cells = {f"tiny-full-s{seed}": cell.model_copy(update={"seed": seed}) for seed in range(seeds)}
    runs = SimpleNamespace(cells=cells, seeds=range(seeds), diverged={}, suite=unchanged.suite)
    assert ("understates their spread" in " ".join(limits(runs))) == few


def test_methods_without_adapters_are_set_against_full_rank_and_not_against_the_paper(results):
    switches = {"rank": 0, "reset_period": None, "update": "galore", "projection_rank": 4}
    others = {
        name: cell.model_copy(update={"method": cell.method.model_copy(update=switches)}) if cell.method.rank else cell
        for name, cell in reversed(results.cells.items())  # full rank comes last
    }
    runs = replace(results, cells=others)
    assert runs.full_rank_method == "full"
    compared = published_vs_replicated(runs)
    assert {cell.split("-")[1] for cell in compared.cell} == {"full"}, "the paper has no numbers of other methods"


SHOWN = [
    "gap_over_training",
    "training_curves",
    "blimp_by_phenomenon",
    "per_weights",
    "per_updates",
    "update_rank",
    "cycle_overlap",
]
SHOWN += ["resets", "adapter_pattern"]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["paper", "experiment"])
def test_the_paper_compiles_to_the_same_bytes_from_any_numbers(unchanged, drawn, figures, tmp_path, monkeypatch, kind):
    for name in SHOWN:
        drawn(name)
    shutil.copytree(figures, tmp_path / "figures")
    found = values(unchanged, Report(title="A title", introduction="Which is better?", published="off"))
    json.dumps(found, allow_nan=False)
    (tmp_path / "paper.d").mkdir()
    for source in (ROOT / "paper").iterdir():
        (tmp_path / "paper.d" / source.name).write_bytes(source.read_bytes())
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        source, output = tmp_path / f"paper.d/{kind}.typ", tmp_path / f"{number}.pdf"
        typeset(source, found, (tmp_path / ".").relative_to(tmp_path), output)
    assert (tmp_path / "1.pdf").read_bytes() == (tmp_path / "2.pdf").read_bytes()
    text = " ".join(page.extract_text() for page in PdfReader(tmp_path / "1.pdf").pages)
    assert "Which is better?" in text and "Claims" in text
    assert ("Learning dynamics" in text) is ("What the audit finds" in text) is (kind == "paper")


def test_the_published_values_are_said():
    assert "7.4e-166" in json.dumps(published_values(Published()))


def test_results_over_seeds_are_means_with_intervals(make_cell, monkeypatch):
    """With documents alike, the interval of the held-out loss is Student's, as the others are."""
    losses = [5.0, 5.2, 5.7]
    measures = ["perplexity", "accuracy", "tokens_per_parameter"]
    ends = [f"{name}_{end}" for name in measures for end in ("low", "high")]
    final = pd.DataFrame(
        [{"cell": f"tiny-full-s{seed}", **dict.fromkeys([*measures, *ends], 1.0)} for seed in range(4)]
    )
    nats = {f"tiny-full-s{seed}": np.full(2, 10 * loss) for seed, loss in enumerate([*losses, np.nan])}
    cells = {name: make_cell("full").model_copy(update={"name": name, "seed": seed}) for seed, name in enumerate(nats)}
    runs = Runs(Path("cells"), cells)
    runs.__dict__["losses"] = Losses(np.full(2, 10.0), nats)
    monkeypatch.setattr(Runs, "diverged", {"tiny-full-s3": 8})
    (row,) = results_table(runs, final).to_dict("records")
    half = stats.t.ppf(0.975, 2) * np.std(losses, ddof=1) / np.sqrt(3)
    assert (row["size"], row["method"], row["seeds"], row["diverged"]) == ("tiny", "full", 3, 1)
    assert row["held_out_loss"] == pytest.approx(5.3) and row["held_out_loss_high"] == pytest.approx(5.3 + half)


def test_a_method_whose_cycles_move_nothing_gets_no_overlap_in_numbers(results):
    path = results.folder / "tiny-relora_released-s42/dynamics.csv"
    rows = pd.read_csv(path)
    rows.loc[rows.metric == "overlap_right", "value"] = np.nan  # as after a dead cycle
    rows.to_csv(path, index=False)
    like = values(results, Report(title="", published="off"))["like"]
    assert {row[1]: row[2] for row in like if row[0] == "tiny"} == {
        "full rank": "0.00100", "ReLoRA": "0.00100", "ReLoRA as released": "–"
    }  # fmt: skip


def test_where_cells_of_a_method_differ_the_audit_counts_them(unchanged):
    header, *rows = values(unchanged, Report(title="", published="off"))["verdicts"]
    found = {row[1]: dict(zip(header, row, strict=True)) for row in rows}
    gradient = found["largest gradient norm of the adapters before the first reset"]
    assert (gradient["ReLoRA"], gradient["ReLoRA as released"]) == ("alive", "dead")
    assert _outcomes(pd.Series(["level", "jumps", "level", "carried_on"])) == "level 2, jumps 1, carried on 1"
    assert _outcomes(pd.Series(["missing", "missing"])) == "–"


@pytest.mark.parametrize(("frozen", "but"), [("float32", ","), ("bfloat16", ", but for the frozen weights")])
def test_a_run_with_rounded_frozen_weights_is_not_said_to_be_all_in_float32(make_cell, frozen, but):
    runs = SimpleNamespace(cells={"one": make_cell("relora", frozen_dtype=frozen)})
    assert [said for said in scale(runs) if said.startswith(f"Our runs are in float32{but}")] != []
    assert any("but for" in said for said in scale(runs)) == (frozen == "bfloat16")
