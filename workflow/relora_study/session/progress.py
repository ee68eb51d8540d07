"""Print a line at least every 30 seconds while a study runs: the share of the work done, what runs, time left.

Snakemake prints progress only when a job ends, so a long job leaves the terminal silent. A logger plugin is no way: it
must be installed, which this package is not, and with `quiet: progress` Snakemake logs no end of a job. So this module
reads the jobs from the scheduler of the running workflow, which no documentation names.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

SECONDS_BETWEEN_LINES = 25.0
NAMED = 3  # how many running jobs a line names
PRIOR = 60.0  # seconds for which the estimates of jobs count as much as what was seen of them
TAIL = 1000  # bytes of a log, which hold its last row


class Training(NamedTuple):
    """How far a training is: the steps done, the steps in all, and the loss of the last (nats a token)."""

    step: int
    steps: int
    loss: float


@dataclass
class Progress:
    """A thread that prints the progress of ``workflow``, from :meth:`start` to :meth:`stop`.

    ``expected`` estimates the seconds of a job from its rule's name and its wildcards, and ``training`` tells how far a
    job is that trains, None for others. With ``trusted`` false, the estimates count only relative to each other: a line
    gives no time before it has seen work done.
    """

    workflow: Any
    expected: Callable[[str, Any], float]
    training: Callable[[str, Any], Training | None] = lambda rule, wildcards: None
    trusted: bool = True
    interval: float = SECONDS_BETWEEN_LINES
    _began: dict[Any, float] = field(default_factory=dict)  # when a running job was first seen
    _work: float = 0.0  # expected seconds of the jobs that ended
    _widest: int = 1  # the most jobs that ran at a time
    _ended: Event = field(default_factory=Event)

    def start(self) -> None:
        """Start the thread."""
        Thread(target=self._run, name="progress", daemon=True).start()

    def stop(self) -> None:
        """Ask the thread to end."""
        self._ended.set()

    def _run(self) -> None:
        began = last = time.monotonic()
        while not self._ended.wait(min(1.0, self.interval)):
            now = time.monotonic()
            running = self._look(now)
            if now - last >= self.interval:
                print(self._line(running, now - began, now), file=sys.stderr, flush=True)
                last = now

    def _look(self, now: float) -> list[Any]:
        """List the jobs that run at ``now``, and count the work of those that finished since the last look."""
        running = list(_single(tuple(self.workflow.scheduler.running)))
        for job in self._began.keys() - set(running):
            del self._began[job]
            self._work += self._expected(job) * self.workflow.dag.finished(job)
        for job in running:
            self._began.setdefault(job, now)
        self._widest = max(self._widest, len(running))
        return running

    def _line(self, running: Sequence[Any], elapsed: float, now: float) -> str:
        parts = [self._part(job, now) for job in running]
        waiting = sum(map(self._expected, self.workflow.scheduler.remaining_jobs))
        done = self._work + sum(work * share for _, work, share in parts)
        total = self._work + sum(work for _, work, _ in parts) + waiting
        longest = max((work * (1 - share) for _, work, share in parts), default=0.0)
        left = seconds_left(done, total, longest, elapsed, self._widest, PRIOR if self.trusted else 0.0)
        return line(done / total if total else 1.0, [words for words, _, _ in parts], left)

    def _part(self, job: Any, now: float) -> tuple[str, float, float]:
        """The words for a running job, its expected seconds, and which share of them it has done."""
        expected = self._expected(job)
        if at := self.training(job.rule.name, job.wildcards):
            return f"{job.wildcards.cell} {at.step:,}/{at.steps:,} loss {at.loss:.2f}", expected, at.step / at.steps
        return _name(job), expected, min(0.9, (now - self._began[job]) / expected) if expected else 0.0

    def _expected(self, job: Any) -> float:
        return self.expected(job.rule.name, job.wildcards)


def last_step(log: Path) -> tuple[int, float] | None:
    """The step and the loss in the last whole row of a training's log.csv; None before the first."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - TAIL))
            step, _, loss = stream.read().decode().rpartition("\n")[0].rpartition("\n")[2].split(",")[:3]
            return int(step), float(loss)
    except (OSError, ValueError):  # no log yet, or only its header
        return None


def _single(jobs: Iterable[Any]) -> Iterator[Any]:
    """Yield single jobs, with the members of each group in its place."""
    for job in jobs:
        yield from job if job.is_group() else [job]


def _name(job: Any) -> str:
    """Return the job's message or, without one, its rule's name."""
    return str(job.message or job.rule.name)


def seconds_left(
    done: float, total: float, longest: float, elapsed: float, widest: int, prior: float = PRIOR
) -> float | None:
    """Estimate the seconds until ``total`` expected seconds of work are done; ``elapsed`` seconds have done ``done``.

    The rate is what was seen, and for ``prior`` further seconds what is expected of ``widest`` jobs at a time, so that
    an estimate moves slowly. ``longest`` is the work that the longest running job has left, which nothing can share.
    None where neither tells a rate.
    """
    rate = (done + prior * widest) / (elapsed + prior) if elapsed + prior else 0.0
    return max((total - done) / rate, longest * widest / rate) if rate else None


def line(share: float, running: Sequence[str], left: float | None) -> str:
    """Format one line of progress; ``left`` is in seconds, or None if it is not known yet."""
    more = [f"{len(running) - NAMED} more"] if len(running) > NAMED else []
    return f"{time.strftime('%H:%M:%S')}  " + " | ".join(
        [f"{share:.0%}".replace("%", " %"), *running[:NAMED], *more, _about(left)]
    )


def _about(left: float | None) -> str:
    if left is None:
        return "time left not known yet"
    minutes = max(1, round(left / 60))
    return f"{minutes} min left" if minutes < 100 else f"{minutes / 60:.0f} h left"
