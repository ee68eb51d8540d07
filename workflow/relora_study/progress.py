"""A line at least every 30 seconds while a study runs: how many jobs are done, what runs now, how long is left.

Snakemake's own progress is said when a job ends, and then not for as long as the next one takes; the logger plugins
that PyPI has draw on a terminal alone. The jobs are read from the running workflow, so no `quiet` hides the line.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

SECONDS_BETWEEN_LINES = 25.0
NAMED = 3  # running jobs that a line names


@dataclass
class Progress:
    """Says how far ``workflow`` is, from :meth:`start` to :meth:`stop`.

    ``expected`` gives the seconds that a job of a rule is expected to take, from the rule's and the cell's name (None
    where it has no cell). Where ``trusted`` is false they are only compared with each other: a time is said once a job
    was timed.
    """

    workflow: Any
    expected: Callable[[str, str | None], float]
    trusted: bool = True
    interval: float = SECONDS_BETWEEN_LINES
    _began: dict[Any, float] = field(default_factory=dict)  # when a running job was first seen
    _timed: list[tuple[float, float]] = field(default_factory=list)  # expected and real seconds of jobs that ended
    _ended: Event = field(default_factory=Event)

    def start(self) -> None:
        """Begin to say how far the study is."""
        Thread(target=self._run, name="progress", daemon=True).start()

    def stop(self) -> None:
        """End it."""
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
        """The jobs that run at ``now``; what ran before and is finished has been timed."""
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
        return self.expected(job.rule.name, getattr(job.wildcards, "cell", None))


def _single(jobs: Iterable[Any]) -> Iterator[Any]:
    """The jobs, and the jobs of groups among them."""
    for job in jobs:
        yield from job if job.is_group() else [job]


def _name(job: Any) -> str:
    """What a job says of itself, or its rule's name."""
    return str(job.message or job.rule.name)


def pace_of(timed: Sequence[tuple[float, float]]) -> float:
    """Real seconds an expected one, over jobs that ended; 1 where none did."""
    expected, real = (sum(values) for values in zip(*timed, strict=True)) if timed else (1.0, 1.0)
    return real / expected


def seconds_left(pace: float, started: Sequence[tuple[float, float]], waiting: Sequence[float]) -> float:
    """Seconds until all jobs are done, when as many run at a time as now.

    ``started`` are expected and past seconds of the running jobs, ``waiting`` the expected ones of those to come.
    """
    rest = [max(pace * expected - past, 0.0) for expected, past in started]
    return max(max(rest, default=0.0), (sum(rest) + pace * sum(waiting)) / max(len(started), 1))


def line(done: int, total: int, running: Sequence[str], left: float | None) -> str:
    """One line of progress; ``left`` is in seconds, None where nobody can tell yet."""
    more = f" and {len(running) - NAMED} more" if len(running) > NAMED else ""
    now = "; ".join(running[:NAMED]) + more if running else "none"
    return f"{time.strftime('%H:%M:%S')} {done} of {total} jobs done. Running: {now}. Time left: {_about(left)}."


def _about(left: float | None) -> str:
    if left is None:
        return "not known yet"
    minutes = max(1, round(left / 60))
    return f"about {minutes} min" if minutes < 100 else f"about {minutes / 60:.0f} h"
