import copy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from relora_study.config import Cell, cells, check
from relora_study.data.tokens import Manifest, Split, write_manifest
from relora_study.files import sha256
from studies import lay_out, snakemake, write_yaml

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def raw() -> dict:
    return yaml.safe_load((ROOT / "config.yaml").read_text())


@pytest.fixture
def make_cell(raw):
    """A tiny cell of a method, with any key of its method or recipe changed."""

    def make(method: str, train: dict | None = None, **switches) -> Cell:
        small = copy.deepcopy(raw)
        small["sizes"]["tiny"] = dict(
            d_model=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1
        )
        small["model"] |= {"vocab_size": 300, "context_length": 16}
        small["train"] |= {"steps": 24, "batch_size": 4, "micro_batch_size": 4, "checkpoint_every": 8}
        small["train"] |= {"state_every": 4, "checkpoint_offset": 3, **(train or {})}
        for block in small["methods"].values():
            block |= {"warmup_steps": 3, "horizon_steps": 100}
            if block["rank"]:
                block |= {"rank": 4, "alpha": 8, "reset_period": 8}
        small["methods"][method] |= switches
        small["study"] = {"sizes": ["tiny"], "methods": [method], "seeds": [1]}
        return cells(check(small, []))[f"tiny-{method}-s1"]

    return make


@pytest.fixture
def prepare(make_cell, tmp_path):
    """A cell's folder, and the command that trains it."""
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    np.random.default_rng(0).integers(0, 300, 17 * 50).astype("<u2").tofile(tokens / "train.bin")
    split = Split(documents=1, tokens=17 * 50, bytes=1, sha256=sha256(tokens / "train.bin"))
    ids = dict(source="test", dtype="uint16", vocab_size=300, end_of_text_id=0, tokenizer_sha256="")
    write_manifest(tokens, Manifest(**ids, train=split, held_out=split))

    def make(name: str, **recipe) -> tuple[Path, list[str]]:
        folder = tmp_path / name
        cell = make_cell("relora", train={"steps": 300, "state_every": 40, **recipe})
        write_yaml(folder / "config.yaml", cell.model_dump())
        places = ["--config", str(folder / "config.yaml"), "--tokens", str(tokens), "--threads", "1"]
        return folder, [sys.executable, "-m", "relora_study.train", "cell", *places]

    return make


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """A finished tiny study, in a folder whose path has a space; ``untouched`` beside it is a copy of its results."""
    folder = lay_out(tmp_path_factory.mktemp("a study") / "with space")
    done = snakemake(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copytree(folder / "results", folder.parent / "untouched")
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
