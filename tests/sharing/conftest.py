"""The results that the tests of sharing pack."""

from pathlib import Path

import pytest
from archives import CELL, LEFT, OWN, SHARED, configure, manifest
from relora_study.storage.contracts import write_contract
from relora_study.storage.files import write_json, write_text


@pytest.fixture
def results(tmp_path) -> Path:
    folder = tmp_path / "results"
    for name in [
        *SHARED,
        *(f"{CELL}/{name}" for name in OWN + LEFT),
        "cells/other-full-s1/log.csv",
        "data/tokens/train.bin",
    ]:
        write_text(folder / name, f"what {name} holds")
    write_json(folder / "data/tokens/manifest.json", {"tokenizer_sha256": "cd" * 32, "train": {"sha256": "ef" * 32}})
    write_contract(folder / CELL / "manifest.json", manifest())
    write_text(folder / "logs/pretrain/tiny-full-s1.log", "said")
    configure(folder)
    return folder
