"""What every benchmark shares: cases timed in turns in one process, and one table of results."""

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import pandas as pd

RESULTS = Path("results/benchmarks")
COLUMNS = ["case", "metric", "unit", "value", "baseline", "ratio"]


def seconds_in_turns(cases: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each case over ``rounds`` rounds, after one round that is not counted; each round runs all."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, run in cases.items():
            began = time.perf_counter()
            run()
            if number:
                times[name].append(time.perf_counter() - began)
    return {name: median(values) for name, values in times.items()}


def resident_kibibytes(field: str) -> int:
    """VmRSS (now) or VmHWM (peak) of this process; `getrusage` would give the parent's peak."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


def write_results(name: str, rows: list[tuple[str, str, str, float, float]]) -> None:
    """Write (case, metric, unit, value, baseline) rows to results/benchmarks/NAME.csv with their ratio; print them."""
    table = pd.DataFrame([(*row, row[3] / row[4]) for row in rows], columns=COLUMNS)
    RESULTS.mkdir(parents=True, exist_ok=True)
    table.to_csv(RESULTS / f"{name}.csv", index=False, float_format="%.4g")
    print(table.to_markdown(index=False, floatfmt=".4g"))
