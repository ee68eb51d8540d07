import copy
from pathlib import Path

import pytest
import torch
import yaml
from relora_study.config import Cell, cells, check

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


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
