"""The results that the tests of sharing pack."""

from pathlib import Path

import pytest
from archives import CELL, LEFT, OWN, SHARED, configure, manifest
from relora_study.storage.contracts import Manifest, Split, write_contract, write_manifest
from relora_study.storage.files import write_text


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
    split = Split(tokens=2, sha256="ef" * 32)
    known = {"source": "files", "dtype": "uint16", "vocab_size": 2, "end_of_text_id": 0, "tokenizer_sha256": "cd" * 32}
    write_manifest(folder / "data/tokens", Manifest(**known, train=split, held_out=split))
    write_contract(folder / CELL / "manifest.json", manifest())
    write_text(folder / "logs/pretrain/tiny-full-s1.log", "said")
    configure(folder)
    return folder
