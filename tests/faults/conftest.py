import subprocess
from pathlib import Path

import pytest
import torch


@pytest.fixture
def batch_of():
    """The token ids of an optimizer step, chosen by its number alone."""
    return lambda step: torch.randint(300, (4, 17), generator=torch.Generator().manual_seed(step))


@pytest.fixture
def run(commands):
    """Run a command of the package in a process of its own."""
    return commands.run


@pytest.fixture
def mount(tmp_path):
    """Mount a memory disk of some bytes in the test's folder, as root alone can; it is gone when the test ends."""
    mounted = []

    def make(size: int) -> Path:
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True)
        if done.returncode:
            pytest.skip(f"only root can mount a small disk: {done.stderr.decode().strip()}")
        mounted.append(place)
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", "--lazy", place], check=True)
