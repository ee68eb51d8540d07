"""docs/notebook.ipynb runs in a kernel of its own, on the results of a study and on a clone that has none."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.end_to_end


def executed(results: Path, monkeypatch) -> nbformat.NotebookNode:
    """The notebook after a run on ``results``; an error of a cell is raised here."""
    monkeypatch.setenv("RESULTS", str(results))
    notebook = nbformat.read(ROOT / "docs/notebook.ipynb", as_version=4)
    resources = {"metadata": {"path": str(ROOT / "docs")}}
    return NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()


def outputs(notebook: nbformat.NotebookNode) -> tuple[str, list[str]]:
    """All text that the cells put out, and the types of what they show."""
    every = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = [output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in every]
    return "\n".join(text), [kind for output in every for kind in output.get("data", {})]


def test_it_reads_tables_draws_opens_a_checkpoint_and_measures_a_matrix(study, monkeypatch):
    text, kinds = outputs(executed(study / "results", monkeypatch))
    assert "image/png" in kinds
    assert "tiny-full-s1" in text and "relora_repaired" in text, "the study's table, and the committed one"
    assert "cells/tiny-full-s1/checkpoints/step-000020 (" in text
    assert "numerical_rank" in text and "W2 of layer 0" in text


@pytest.mark.long
def test_without_results_it_reads_what_is_committed(tmp_path, monkeypatch):
    text, kinds = outputs(executed(tmp_path, monkeypatch))
    assert "image/png" in kinds and "relora_repaired" in text
    assert "No results yet: make run" in text and "No checkpoint yet: make run" in text
    assert "numerical_rank" in text


def test_the_committed_one_was_run_to_its_end():
    cells = [
        cell for cell in nbformat.read(ROOT / "docs/notebook.ipynb", as_version=4).cells if cell.cell_type == "code"
    ]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    assert all(output.output_type != "error" for cell in cells for output in cell.outputs)
