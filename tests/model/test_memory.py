"""Freed memory goes back to the system where it is asked to."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Blocks of 4 MiB, each with a small one behind it that stays: holes that a heap keeps.
HOLES = """
import re, torch
from pathlib import Path
from relora_study.model.memory import release_freed_memory
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
