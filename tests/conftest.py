import copy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from processes import Commands
from readings import write_results
from relora_study.analysis.results import Runs, open_runs
from relora_study.analysis.source import Source, overlaid
from relora_study.config import Cell, Report, cells, check, read_section
from relora_study.storage.contracts import Manifest, Split, write_manifest
from relora_study.storage.files import read_yaml, sha256
from studies import lay_out, snakemake, write_yaml

ROOT = Path(__file__).parent.parent
# Files whose tests share a fixture that takes long: one process runs them, and makes it once. The longest comes first.
# (pytest-xdist's own groups need a later version: 3.8.0 cannot tell pytest 9.2 the name of a test's group.)
OF_THE_STUDY = ("end_to_end.", "session.", "settings.", "notebook.")
GROUPS = {
    "study": (*(f"tests/workflow/test_{name}" for name in OF_THE_STUDY), "tests/faults/test_study.py"),
    "experiments": ("tests/experiments/test_study.py",),
    "methods": ("tests/workflow/test_methods.py",),
    "processes": ("tests/train/test_process.py", "tests/train/test_divergence.py", "tests/faults/test_storage.py"),
}


def group_of(node: str) -> str:
    """The group of the test named ``node``: by its file, which else is a group of its own."""
    file = node.partition("::")[0]
    return next((group for group, places in GROUPS.items() if file.startswith(places)), file)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the groups, in their order."""
    order = list(GROUPS)
    items.sort(key=lambda item: order.index(group) if (group := group_of(item.nodeid)) in order else len(order))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Processes take group after group."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return ByGroup(config, log)


@pytest.fixture(scope="session")
def raw() -> dict:
    return yaml.safe_load((ROOT / "config.yaml").read_text())


@pytest.fixture(scope="session")
def make_cell(raw):
    """A tiny cell of a method, with any key of its method or recipe changed; a new method begins as full rank."""

    def make(method: str, train: dict | None = None, **switches) -> Cell:
        small = copy.deepcopy(raw)
        small["sizes"]["tiny"] = dict(
            d_model=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1
        )
        small["model"] |= {"vocab_size": 300, "context_length": 16}
        small["train"] |= {"steps": 24, "batch_size": 4, "micro_batch_size": 4, "checkpoint_every": 8}
        small["train"] |= {"state_every": 4, "checkpoint_offset": 3, **(train or {})}
        small["methods"].setdefault(method, {"rank": 0, "schedule": "linear"})
        for block in small["methods"].values():
            block |= {"warmup_steps": 3, "horizon_steps": 100}
            if block["rank"]:
                block |= {"rank": 4, "alpha": 8, "reset_period": 8}
        small["methods"][method] |= switches
        small["study"] = {"sizes": ["tiny"], "methods": [method], "seeds": [1]}
        return cells(check(small, []))[f"tiny-{method}-s1"]

    return make


def write_tokens(folder: Path) -> Path:
    """Fifty rows of token ids in ``folder``, which training reads."""
    folder.mkdir(parents=True)
    np.random.default_rng(0).integers(0, 300, 17 * 50).astype("<u2").tofile(folder / "train.bin")
    split = Split(documents=1, tokens=17 * 50, bytes=1, sha256=sha256(folder / "train.bin"))
    ids = dict(source="test", dtype="uint16", vocab_size=300, end_of_text_id=0, tokenizer_sha256="")
    write_manifest(folder, Manifest(**ids, train=split, held_out=split))
    return folder


def write_training(cell: Cell, folder: Path, tokens: Path) -> list[str]:
    """Write the settings of a training in ``folder``; the command that trains."""
    write_yaml(folder / "config.yaml", cell.model_dump())
    places = ["--config", str(folder / "config.yaml"), "--tokens", str(tokens), "--threads", "1"]
    return ["relora_study.train", "cell", *places]


TRAINED = {"steps": 300, "state_every": 40}


@pytest.fixture
def prepare(make_cell, tmp_path) -> Callable[..., tuple[Path, list[str]]]:
    """A cell's folder, and the command that trains it."""
    tokens = write_tokens(tmp_path / "tokens")

    def make(name: str, **recipe) -> tuple[Path, list[str]]:
        cell = make_cell("relora", train=TRAINED | recipe)
        return tmp_path / name, write_training(cell, tmp_path / name, tokens)

    return make


@pytest.fixture(scope="session")
def whole(make_cell, tmp_path_factory) -> Path:
    """The folder of the cell that `prepare` makes, trained by one process that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    command = write_training(make_cell("relora", train=TRAINED), folder / "cell", write_tokens(folder / "tokens"))
    done = Commands(folder).run(command)
    assert done.returncode == 0, done.stderr
    return folder / "cell"


@pytest.fixture
def commands(tmp_path) -> Iterator[Commands]:
    """Starts commands of the package in processes of their own."""
    started = Commands(tmp_path)
    yield started
    started.end()


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """A finished tiny study, in a folder whose path has a space; ``untouched`` beside it is a copy as it was made."""
    folder = lay_out(tmp_path_factory.mktemp("a study") / "with space")
    done = snakemake(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copytree(folder, folder.parent / "untouched")
    return folder


@pytest.fixture(scope="session")
def written(raw, tmp_path_factory) -> Path:
    """A results folder of hand-made readings, which no test changes."""
    folder = tmp_path_factory.mktemp("readings")
    three = {"methods": ["full", "relora", "relora_released"]}
    write_results({**raw, "study": raw["study"] | three}, folder)
    return folder


@pytest.fixture(scope="session")
def unchanged(written) -> Runs:
    """The runs in `written`, whose files are read once for all tests."""
    return open_runs(written)


@pytest.fixture
def results(written, tmp_path) -> Runs:
    """A test's own copy of the runs in `written`, for it to change."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return open_runs(tmp_path)


@pytest.fixture
def opened(results) -> Callable[[str], Source]:
    """The source of figures under a setting of `report.published`."""

    def opened(published: str) -> Source:
        place = results.folder.parent / "settings/report.yaml"
        write_yaml(place, read_yaml(place) | {"published": published})
        return overlaid(open_runs(results.folder.parent), read_section(Report, place))

    return opened


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
