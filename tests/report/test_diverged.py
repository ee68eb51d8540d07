"""A cell that diverged is marked wherever it appears, and all figures, tables and the paper are made."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot
from relora_study.analysis.results import LAST_STEPS, last_losses, open_runs
from relora_study.config import Report
from relora_study.report.figures import FIGURES
from relora_study.report.paper import values
from relora_study.report.sentences import diverged_cells
from relora_study.report.style import finish
from relora_study.report.summary import outcome
from relora_study.report.tables import TABLES, mark, write_table
from relora_study.report.templates import render
from relora_study.storage.files import read_yaml, write_json, write_text
from relora_study.train.divergence import Diverged
from relora_study.train.log import Recorder
from relora_study.train.loop import train

CPU = torch.device("cpu")
BATCH = torch.arange(4 * 17).reshape(4, 17)
CELL = "small-relora-s42"


@pytest.fixture(scope="module")
def last_row(make_cell, tmp_path_factory):
    """The last row that the trainer wrote of a training that really diverged, less its step and tokens."""
    folder = tmp_path_factory.mktemp("runaway")
    train(make_cell("relora", train={"learning_rate": 1e25}), CPU, lambda step: BATCH, folder)
    row = (folder / "log.csv").read_text().splitlines()[-1].split(",")[2:]
    assert row.count("nan") == 3, "both norms of gradients, and the update's"
    return row


@pytest.fixture(scope="module")
def diverged(written, last_row, tmp_path_factory):
    """The study with one cell that diverged at step 243: its log ends there, its readings at step 240."""
    results = shutil.copytree(written, tmp_path_factory.mktemp("diverged") / "results")
    folder = results / "cells" / CELL
    header, *rows = (folder / "log.csv").read_text().splitlines()
    write_text(folder / "log.csv", "\n".join([header, *rows[:242], ",".join(["243", "248832", *last_row]), ""]))
    for name in ("evaluation.csv", "dynamics.csv", "timing.csv"):
        pd.read_csv(folder / name).query("step <= 240").to_csv(folder / name, index=False)
    held_out = pd.read_csv(folder / "held_out.csv")
    held_out.assign(nats=np.nan).to_csv(folder / "held_out.csv", index=False)
    write_json(folder / "manifest.json", read_yaml(folder / "manifest.json") | {"diverged_at": 243})
    return open_runs(results)


def test_the_manifest_says_what_diverged(diverged):
    assert diverged.diverged == {CELL: 243}


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_whatever_the_trainer_writes_stays_a_number(results, loss):
    row = {"step": 243, "tokens": 248832, "loss": torch.tensor(loss), "learning_rate": 0.001, "reset": 0}
    with pytest.raises(Diverged), Recorder(results.folder / CELL, 242, 1024, 1) as recorder:
        recorder.add(row | dict.fromkeys(("gradient_norm", "adapter_gradient_norm", "update_norm"), loss))
    log = results.table("log.csv")[["loss", "gradient_norm", "adapter_gradient_norm", "update_norm"]]
    assert log.dtypes.eq("float64").all()
    assert last_losses(results).count()[CELL] == LAST_STEPS - 1


def test_a_cell_that_diverged_is_counted_and_enters_no_difference(diverged):
    table = TABLES["differences"](diverged)
    size, method, _ = CELL.split("-")
    its = (table["size"] == size) & (table.method == method)
    assert its.any() and table[its].difference.isna().all() and (table[its].diverged == 1).all()
    assert table[~its].difference.notna().all() and (table[~its].diverged == 0).all()
    beside = TABLES["yardsticks"](diverged).set_index(["size", "method"])
    assert beside.diverged[size, method] == 1 and np.isnan(beside.held_out_loss[size, method])
    assert TABLES["trend"](diverged).set_index("method").cells[method] == 1, "of two sizes"


WITHOUT_CELLS = ("claims", "differences", "gaps", "trend", "yardsticks")


@pytest.mark.parametrize("name", [name for name in TABLES if name not in WITHOUT_CELLS])
def test_every_table_is_made_and_marks_the_cell(diverged, tmp_path, name):
    write_table(mark(TABLES[name](diverged), diverged.diverged), tmp_path / name)
    rows = pd.read_csv(tmp_path / f"{name}.csv")
    if name == "hyperparameters":
        marked = rows.set_index("setting").loc["diverged_at"]
        assert marked[CELL] == "243" and marked.drop(CELL).isna().all()
    else:
        assert (rows[rows.cell == CELL].diverged_at == 243).all() and rows[rows.cell != CELL].diverged_at.isna().all()
    for ending in ("md", "tex"):
        assert "diverged" in (tmp_path / f"{name}.{ending}").read_text()


FIRST = ("gap_over_training", "training_curves", "blimp_over_training", "per_weights", "resets")  # others take minutes
NAMES = [pytest.param(name, marks=[] if name in FIRST else pytest.mark.long) for name in FIGURES]


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_made_and_marks_the_method(diverged, tmp_path, name):
    figure = FIGURES[name](diverged)
    finish(figure, tmp_path / name, diverged_cells(diverged))
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    labels += [text.get_text() for axes in figure.axes for text in axes.texts]
    assert any(label.startswith("ReLoRA") and label.endswith("†") for label in labels)
    assert not any(label.startswith("ReLoRA as released") and label.endswith("†") for label in labels)
    assert "small, ReLoRA, seed 42, at step 243" in figure.get_supxlabel().replace("\n", " ")
    pyplot.close(figure)


def test_the_paper_and_the_first_page_count_it_and_compare_it_with_nothing(diverged):
    found = values(diverged, Report(title="", published="off"))
    json.dumps(found, allow_nan=False)
    said = " ".join(found["abstract"])
    assert "1 of 6 cells diverged: small, ReLoRA, seed 42, at step 243." in said and "(one seed)" in said
    assert not any(text.startswith("small, ReLoRA:") for text in found["results"])
    assert "diverged" in found["final"][0] and any("ReLoRA †" in table["rows"][0] for table in found["audit"])
    assert "1 of 6 cells diverged" in render("summary.md", outcome(diverged))


def test_a_study_without_such_a_cell_keeps_its_tables(unchanged):
    for make in TABLES.values():
        table = make(unchanged)
        assert mark(table, unchanged.diverged) is table
