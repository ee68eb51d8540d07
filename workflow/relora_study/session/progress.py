"""Print a line at least every 30 seconds while a study runs: jobs done, jobs that run, time left.

Snakemake prints progress only when a job ends, so a long job leaves the terminal silent. A logger plugin is no way: it
must be installed, which this package is not, and with `quiet: progress` Snakemake logs no end of a job. So this module
reads the jobs from the scheduler of the running workflow, which no documentation names.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

SECONDS_BETWEEN_LINES = 25.0
NAMED = 3  # how many running jobs a line names


@dataclass
class Progress:
    """A thread that prints the progress of ``workflow``, from :meth:`start` to :meth:`stop`.

    ``expected`` estimates the seconds of a job from its rule's name and its wildcards.
    With ``trusted`` false, the estimates count only relative to each other: a line gives no time until a job has ended.
    """

    workflow: Any
    expected: Callable[[str, Any], float]
    trusted: bool = True
    interval: float = SECONDS_BETWEEN_LINES
    _began: dict[Any, float] = field(default_factory=dict)  # when a running job was first seen
    _timed: list[tuple[float, float]] = field(default_factory=list)  # expected and real seconds of jobs that ended
    _ended: Event = field(default_factory=Event)

    def start(self) -> None:
        """Start the thread."""
        Thread(target=self._run, name="progress", daemon=True).start()

    def stop(self) -> None:
        """Ask the thread to end."""
        self._ended.set()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(min(1.0, self.interval)):
            now = time.monotonic()
            running = self._look(now)
            if now - last >= self.interval:
                print(self._line(running, now), file=sys.stderr, flush=True)
                last = now

    def _look(self, now: float) -> list[Any]:
        """List the jobs that run at ``now``, and time those that finished since the last look."""
        running = list(_single(tuple(self.workflow.scheduler.running)))
        for job in self._began.keys() - set(running):
            began = self._began.pop(job)
            if self.workflow.dag.finished(job):
                self._timed.append((self._expected(job), now - began))
        for job in running:
            self._began.setdefault(job, now)
        return running

    def _line(self, running: Sequence[Any], now: float) -> str:
        scheduler = self.workflow.scheduler
        waiting = [self._expected(job) for job in scheduler.remaining_jobs]
        started = [(self._expected(job), now - self._began[job]) for job in running]
        pace = pace_of(self._timed) if self._timed or self.trusted else None
        left = None if pace is None else seconds_left(pace, started, waiting)
        return line(scheduler.finished_jobs, len(self.workflow.dag), [_name(job) for job in running], left)

    def _expected(self, job: Any) -> float:
        return self.expected(job.rule.name, job.wildcards)


def _single(jobs: Iterable[Any]) -> Iterator[Any]:
    """Yield single jobs, with the members of each group in its place."""
    for job in jobs:
        yield from job if job.is_group() else [job]


def _name(job: Any) -> str:
    """Return the job's message or, without one, its rule's name."""
    return str(job.message or job.rule.name)


def pace_of(timed: Sequence[tuple[float, float]]) -> float:
    """Return the real seconds per expected second over the jobs that ended, or 1 if none did."""
    expected, real = (sum(values) for values in zip(*timed, strict=True)) if timed else (1.0, 1.0)
    return real / expected


def seconds_left(pace: float, started: Sequence[tuple[float, float]], waiting: Sequence[float]) -> float:
    """Estimate the seconds until all jobs are done, if as many jobs run at a time as now.

    ``started`` holds expected and past seconds of each running job, ``waiting`` the expected seconds of later jobs.
    """
    rest = [max(pace * expected - past, 0.0) for expected, past in started]
    return max(max(rest, default=0.0), (sum(rest) + pace * sum(waiting)) / max(len(started), 1))


def line(done: int, total: int, running: Sequence[str], left: float | None) -> str:
    """Format one line of progress; ``left`` is in seconds, or None if it is not known yet."""
    more = f" and {len(running) - NAMED} more" if len(running) > NAMED else ""
    now = "; ".join(running[:NAMED]) + more if running else "none"
    return f"{time.strftime('%H:%M:%S')} {done} of {total} jobs done. Running: {now}. Time left: {_about(left)}."


def _about(left: float | None) -> str:
    if left is None:
        return "not known yet"
    minutes = max(1, round(left / 60))
    return f"about {minutes} min" if minutes < 100 else f"about {minutes / 60:.0f} h"
