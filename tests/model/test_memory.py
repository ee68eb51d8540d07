"""Freed memory goes back to the system where it is asked to."""

import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from relora_study.model.device import peak_memory_bytes

ROOT = Path(__file__).parents[2]

# Blocks of 4 MiB, each with a small one behind it that stays: holes that a heap keeps.
HOLES = """
import re, torch
from pathlib import Path
from relora_study.model.device import release_freed_memory
if {asked}: assert release_freed_memory()
kept = [(torch.ones(2**20), torch.ones(2**15)) for _ in range(40)]
small = [pair[1] for pair in kept]
del kept
print(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def resident_mebibytes(asked: bool) -> float:
    command = [sys.executable, "-c", HOLES.format(asked=asked)]
    environment = {"PYTHONPATH": str(ROOT / "workflow"), "MALLOC_MMAP_THRESHOLD_": str(2**24)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout) / 2**10


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone has the setting")
def test_freed_blocks_go_back():
    assert resident_mebibytes(asked=False) - resident_mebibytes(asked=True) > 100


@pytest.mark.parametrize(("platform", "counted"), [("linux", 3 * 2**10), ("darwin", 3 * 2**20)])
def test_the_peak_is_in_bytes_whatever_the_system_counts_in(monkeypatch, platform, counted):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=counted))
    assert peak_memory_bytes() == 3 * 2**20


def test_the_peak_here_is_the_kernels_own():
    held = Path("/proc/self/status")
    if not held.exists():
        pytest.skip("no /proc")
    kibibytes = int(held.read_text().partition("VmHWM:")[2].split()[0])
    assert peak_memory_bytes() >= 2**10 * kibibytes * 0.99
