import textwrap
from itertools import takewhile
from types import ModuleType, SimpleNamespace

import pytest
import torch
from relora_study.model.kernels import matmul
from torch.nn import functional


@pytest.fixture
def reference():
    """A kernel module's plain reference, run from the module's docstring, where a reader finds it."""

    def load(module: ModuleType) -> SimpleNamespace:
        _, _, block = module.__doc__.partition("Plain reference::\n")
        indented = takewhile(lambda line: line.startswith(" ") or not line, block.split("\n"))
        names = {"torch": torch, "functional": functional}
        exec(textwrap.dedent("\n".join(indented)), names)
        return SimpleNamespace(**names)

    return load


@pytest.fixture
def onednn(monkeypatch):
    """Products go to oneDNN, on any processor."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this PyTorch comes without oneDNN's linear operation")
    monkeypatch.setattr(matmul, "USE_ONEDNN", True)


@pytest.fixture(params=["onednn", "usual"])
def either_library(request, monkeypatch):
    """Products go to oneDNN, then to PyTorch's usual library."""
    monkeypatch.setattr(matmul, "USE_ONEDNN", False)
    if request.param == "onednn":
        request.getfixturevalue("onednn")
