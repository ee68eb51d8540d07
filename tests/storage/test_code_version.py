"""The files that a stage depends on are those it imports: held against what Python itself loads."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from relora_study.storage import hashes

PACKAGE = Path(__file__).parents[2] / "workflow/relora_study"
ROOTS = ["data.__main__", "evaluate.__main__", "dynamics.__main__", "report.__main__", "train.__main__"]
ROOTS += ["evaluate.tasks", "dynamics.cell"]
# Imports each module in a process of its own, then what the loaded modules import inside their functions, and says
# which files that ran. The processes share the libraries, which take most of the time.
LOADED = r"""
import importlib, os, re, sys
from pathlib import Path
import torch, transformers, pandas, matplotlib
def own():
    return {m for name, m in list(sys.modules.items()) if name.split(".")[0] == "relora_study"}
for root in sys.argv[1:]:
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
        continue
    importlib.import_module(f"relora_study.{root}")
    for module in own():
        for name in re.findall(r"^ +from (\.+[\w.]*) import", Path(module.__file__).read_text(), re.MULTILINE):
            importlib.import_module(name, module.__spec__.parent)
    print("\n".join(f"{root} {m.__file__}" for m in own()), flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[Path]]:
    """The package's files that Python runs, by the module that it imports."""
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *ROOTS], capture_output=True, text=True, env=environment, check=True
    )
    lines = [line.split(" ", 1) for line in done.stdout.splitlines()]
    return {root: {Path(file) for name, file in lines if name == root} for root in ROOTS}


@pytest.fixture
def edited(monkeypatch, tmp_path):
    """A copy of the package that `hashes` looks at, and a way to have it look again."""
    copy = tmp_path / "relora_study"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(hashes, "PACKAGE", copy)

    def keys() -> dict[str, str]:
        hashes.code_version.cache_clear()
        return {root: hashes.code_version(root) for root in ROOTS}

    hashes.source_files.cache_clear()
    yield copy, keys
    hashes.source_files.cache_clear()
    hashes.code_version.cache_clear()


@pytest.mark.long
@pytest.mark.parametrize("root", ROOTS)
def test_the_files_are_those_that_python_loads(loaded, root):
    assert set(hashes.source_files(root)) == loaded[root]


@pytest.mark.long
def test_a_change_to_a_module_changes_the_key_of_exactly_what_imports_it(loaded, edited):
    copy, keys = edited
    before = keys()
    modules = sorted(copy.rglob("*.py"))
    assert len(modules) > 60
    for module in modules:
        kept = module.read_text()
        module.write_text(f"{kept}\nCHANGED = True\n")
        changed = {root for root, key in keys().items() if key != before[root]}
        module.write_text(kept)
        original = PACKAGE / module.relative_to(copy)
        assert changed == {root for root in ROOTS if original in loaded[root]}, module.relative_to(copy)


def test_a_comment_changes_no_key(edited):
    copy, keys = edited
    before = keys()
    for module in copy.rglob("*.py"):
        module.write_text(f"{module.read_text()}\n# a remark\n")
    assert keys() == before


def test_a_module_in_a_folder_of_its_own_counts(edited):
    copy, keys = edited
    before = keys()
    (copy / "model/inner").mkdir()
    (copy / "model/inner/__init__.py").write_text("")
    (copy / "model/inner/deep.py").write_text("VALUE = 1\n")
    reader = copy / "model/checkpoints.py"
    reader.write_text(f"{reader.read_text()}\nfrom .inner import deep\n")
    hashes.source_files.cache_clear()
    one = keys()
    (copy / "model/inner/deep.py").write_text("VALUE = 2\n")
    two = keys()
    reads_models = {root for root in ROOTS if "model/checkpoints.py" in map(str, files_of(root, copy))}
    assert reads_models >= {"evaluate.tasks", "dynamics.cell"}
    assert {root for root in ROOTS if before[root] != one[root] != two[root]} == reads_models


def files_of(root: str, copy: Path) -> list[Path]:
    return [file.relative_to(copy) for file in hashes.source_files(root)]


@pytest.mark.long
def test_readers_import_nothing_of_the_training(loaded):
    for root in ("evaluate.__main__", "dynamics.__main__"):
        rooms = {file.relative_to(PACKAGE).parts[0] for file in loaded[root]}
        assert "model" in rooms and not rooms & {"train", "report"}
    assert not {file.relative_to(PACKAGE).parts[0] for file in loaded["train.__main__"]} & {"evaluate", "dynamics"}
