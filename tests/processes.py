"""The package's commands as processes of their own, forked from one that has imported PyTorch and the libraries.

A test that starts ten trainers would otherwise import PyTorch ten times, which takes longer than the training.
"""

import multiprocessing
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
# Libraries, and no module that is a command: a process then finds its own `__main__` not imported yet.
FORKS.set_forkserver_preload(["torch", "transformers.models.llama.modeling_llama", "pandas", "datasets", "typer"])


def _command(arguments: list[str], cwd: str, said: str, limits: Mapping[int, int], environment: dict[str, str]) -> None:
    """Become ``python -m`` with ``arguments``, whose standard output and error go to the file ``said``."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a test run in the background ignores
    os.environ.update(environment)
    os.chdir(cwd)
    with Path(said).open("wb") as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


class Running:
    """A command that runs."""

    def __init__(self, arguments: list[str], said: Path, cwd: Path, limits: Mapping[int, int]) -> None:
        self._said = said
        told = (arguments, str(cwd), str(said), limits, {"OMP_NUM_THREADS": "1"})
        self.process = FORKS.Process(target=_command, args=told)
        self.process.start()

    @property
    def said(self) -> str:
        """What the process has written so far."""
        return self._said.read_text() if self._said.exists() else ""

    def poll(self) -> int | None:
        """The exit code, the negative number of the signal that ended the process, or None while it runs."""
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()
        self.process.join()

    def wait(self, timeout: float = 600) -> int:
        """The exit code; fails where the process is still running after ``timeout`` seconds."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"still running after {timeout} s: {self.said}"
        return self.process.exitcode

    def wait_to_say(self, text: str, timeout: float = 180) -> None:
        """Return when the process has written ``text``."""
        end = time.monotonic() + timeout
        while text not in self.said:
            assert self.poll() is None and time.monotonic() < end, f"never said {text!r}: {self.said}"
            time.sleep(0.02)


class Commands:
    """Starts commands of the package, and ends those that still run when the test ends."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._started = folder, []

    def start(self, arguments: list, cwd: Path | None = None, limits: Mapping[int, int] | None = None) -> Running:
        """Start ``arguments``: a module's name, which ``python -m`` would run, and its options."""
        said = self._folder / f"{len(self._started)}.txt"
        running = Running([*map(str, arguments)], said, cwd or self._folder, limits or {})
        self._started.append(running)
        return running

    def run(self, arguments: list, **options) -> subprocess.CompletedProcess:
        """Run ``arguments`` to their end; standard output comes with standard error."""
        running = self.start(arguments, **options)
        return subprocess.CompletedProcess(arguments, running.wait(), stdout=running.said, stderr=running.said)

    def finish(self, arguments: list, **options) -> str:
        """What ``arguments`` write while they run; fails where they end with an error."""
        done = self.run(arguments, **options)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def end(self) -> None:
        """End what still runs."""
        for running in self._started:
            running.kill()
