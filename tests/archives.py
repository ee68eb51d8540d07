"""Results of a study of one cell, with contents that are quick to write, and the archive of them."""

import subprocess
from pathlib import Path

from relora_study.config import read_study
from relora_study.sharing.archive import pack
from relora_study.storage.contracts import CellManifest
from studies import ROOT, write_yaml

VALIDATOR = ROOT / ".venv-metadata/bin/python"
CELL = "cells/tiny-full-s1"
SHARED = [
    "settings/study.yaml",
    "settings/whole.yaml",
    "tables/final.csv",
    "figures/f.pdf",
    "paper.pdf",
    "reproducibility.md",
]
OWN = [
    "config.yaml",
    "log.csv",
    "timing.csv",
    "manifest.json",
    "evaluation.csv",
    "evaluation/step-000020-minimal_pairs-0.parquet",
    "evaluation/step-000020-perplexity-0.parquet",
]
LEFT = [
    "checkpoints/step-000020/model.safetensors",
    "state/step-000020/state.json",
    "evaluation/step-000008-minimal_pairs-0.parquet",
]


def configure(results: Path, **sections) -> None:
    """Write the whole configuration of a study of one cell, with some keys of its sections changed."""
    one_cell = {"study": {"sizes": ["tiny"], "methods": ["full"], "seeds": [1]}}
    study = read_study([ROOT / "config.yaml", ROOT / "tests/tiny.yaml"], one_cell | sections)
    write_yaml(results / "settings/whole.yaml", study.model_dump())


def manifest(**changes) -> CellManifest:
    known = {"cell": "tiny-full-s1", "parameters": 1, "trainable_parameters": 1, "steps": 20, "tokens": 1, "resets": []}
    known |= {"peak_memory_bytes": 1, "device": "cpu", "threads": 1, "processes": 1, "platform": "Linux"}
    known |= {"versions": {"relora_study": "1.0.0", "python": "3.11.7", "torch": "2.13.0+cpu"}}
    known |= {"final_sha256": "ab" * 32, "ended": "2026-11-28T10:00:00+00:00"}
    return CellManifest(**known | changes)


def packed(results: Path) -> Path:
    output = results.parent / "archive.tar.gz"
    pack(results, results / "settings/whole.yaml", output, "9.27.1")
    return output


def faults(crate: Path, severity: str) -> list[str]:
    """What roc-validator finds in the crate, without network; one line a fault."""
    assert VALIDATOR.exists(), "make .venv-metadata makes the validator's environment"
    command = [VALIDATOR, ROOT / "tests/sharing/validate.py", crate, severity]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    *found, last = done.stdout.splitlines()
    assert int(last.removesuffix(" checks")) > 40, "nothing was checked"
    return found
