"""Readings and columns are declared where they are computed, and the page of the results takes them from there."""

import pytest
import torch
from relora_study import readme
from relora_study.dynamics import readings
from relora_study.dynamics.cell import cell_table, open_subject
from relora_study.train.loop import train
from studies import write_yaml

IDS = torch.randint(300, (24, 4, 17), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(make_cell, tmp_path):
    cell = make_cell("relora")
    train(cell, torch.device("cpu"), lambda step: IDS[step], tmp_path)
    write_yaml(tmp_path / "config.yaml", cell.model_dump())
    return tmp_path


def test_the_page_has_what_the_code_declares():
    text = readme.README.read_text()
    assert readme.made(text) == text, "run make docs"


def test_every_quantity_that_a_cell_has_is_declared_and_a_new_one_is_added_in_one_place(folder, monkeypatch):
    def widest(checkpoint):
        largest = checkpoint.effective["w2"].abs().amax((-2, -1))
        yield readings.Values("entries", "w2", "largest", largest)

    new = readings.Declared("entries", "the `largest` entry of W + s B A by size", "`w2`", "the matrix's", widest)
    monkeypatch.setattr(readings, "READINGS", [*readings.READINGS, new])
    table = cell_table(open_subject(folder, IDS[0], 2, 8), folder / "dynamics")
    assert set(table.quantity) == {declared.quantity for declared in readings.READINGS}
    found = table[table.quantity == "entries"]
    assert found.value.gt(0).all() and set(found.layer) == {0, 1} and set(found.step) == set(table.step)
    assert "| `entries` | the `largest` entry of W + s B A by size | `w2` | the matrix's |" in readme.made(
        "<!-- dynamics.csv, made by `make docs` -->\n\n<!-- end -->"
    )


def test_the_log_has_the_declared_columns(folder):
    assert (folder / "log.csv").read_text().splitlines()[0].split(",") == [column.name for column in readme.log.COLUMNS]
