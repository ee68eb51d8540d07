"""A study of seconds in a folder of its own, and the commands that run it."""

import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from relora_study.storage.files import write_text

ROOT = Path(__file__).parent.parent
PARTS = (
    *("Snakefile", "config.yaml", "CITATION.cff", "LICENSE", "tests/tiny.yaml"),
    *("workflow", "envs", "resources", "paper"),
)
LATE = {
    "figure",
    "table",
    "paper",
    "summary",
    "explore",
    "pages",
    "landing",
    "reproducibility",
    "all",
    "total",
}  # what makes the report
WORDS = ["the", "a", "minister", "doctor", "report", "said", "that", "people", "new", "old", "city", "law", "was"]
# Names of files that Snakemake, a shell or a reader of lists could take for its own syntax.
ODD = ["{doc_1}.txt", "<title>.txt", "{{x}}.txt", "}{.txt", "a 'b' \"c\".txt", "$(x) *?[y].txt", "Ünïcode ✓.txt"]
ODD += ["line\nbreak.txt", "-n.txt"]
NO_NETWORK = """import socket
from pathlib import Path

def refuse(*arguments, **_):
    (Path(__file__).parents[1] / "network.txt").open("a").write(f"{arguments}\\n")
    raise OSError("no network in this test")

def local_alone(method):
    return lambda self, *rest: (method if self.family == socket.AF_UNIX else refuse)(self, *rest)

for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, local_alone(getattr(socket.socket, name)))
socket.getaddrinfo = refuse
"""


def command(*arguments: str, configs: tuple[str, ...] = ("tests/tiny.yaml",)) -> list[str]:
    return [sys.executable, "-m", "snakemake", "--configfile", *configs, "--cores", "2", *arguments]


def bare_environment() -> dict[str, str]:
    """That of a venv which nobody activated."""
    return {"PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"]}


def snakemake(folder: Path, *arguments: str, **configs) -> subprocess.CompletedProcess:
    options = {"cwd": folder, "capture_output": True, "text": True, "env": bare_environment()}
    return subprocess.run(command(*arguments, **configs), timeout=7200, **options)


def planned(folder: Path, *arguments: str) -> dict[str, int]:
    """How many jobs of each rule a run would start."""
    text = snakemake(folder, "--dry-run", *arguments).stdout
    assert "Traceback" not in text
    stats = text.partition("Job stats:")[2]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", stats, re.MULTILINE)}


def unpacked(archive: Path, clone: Path) -> Path:
    """A fresh copy of the project in ``clone``, with ``archive`` unpacked as its user would do it."""
    lay_out(clone)
    unpack = [sys.executable, "-m", "relora_study.sharing.archive", "unpack", archive]
    subprocess.run(unpack, cwd=clone, env={"PYTHONPATH": "workflow"}, check=True)
    return clone


def lay_out(folder: Path) -> Path:
    """The project's own files and a corpus of two domains in ``folder``; a job that tries the network fails."""
    for name in PARTS:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    (folder / "workflow/sitecustomize.py").write_text(NO_NETWORK)  # the jobs' PYTHONPATH is this folder
    words = random.Random(0)
    for domain in ("letters", "minutes"):
        (folder / "corpus" / domain).mkdir(parents=True)
        for number in range(60):
            text = " ".join(words.choices(WORDS, k=120))
            (folder / "corpus" / domain / f"{number}.txt").write_text(text)
    for name in ODD:
        (folder / "corpus/letters" / name).write_text(f"the minister said {name}")
    return folder


def write_yaml(path: Path, value: Any) -> None:
    """Write ``value`` to ``path``, keys in their own order."""
    write_text(path, yaml.safe_dump(value, sort_keys=False))
