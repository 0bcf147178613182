"""What spreading costs: many tasks that take no time to speak of, through the code that spreads tomograms."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from scripts.cluster.spread import spread
from scripts.cluster.workers import hire

SECONDS = 0.05  # what a task takes
DIES = 1000  # one task in so many ends its worker, the first time


def task(item: tuple[str, int], second: bool) -> str:
    """Sleep as long as a task takes; one in a hundred fails once or, rarer, takes its worker along."""
    folder, number = item
    time.sleep(SECONDS)
    mark = Path(folder) / str(number)
    if number % 100 == 50 and not mark.exists():
        mark.touch()
        if number % DIES == 50:
            os._exit(1)
        raise OSError("injected: the disk was away")
    return str(number)


def run(full: bool = False) -> list[dict[str, Any]]:
    """One row: seconds and messages a task, memory of the scheduler's process, what failures cost."""
    number, workers = (10_000 if full else 1_000), 2
    process, before = psutil.Process(), psutil.Process().memory_info().rss
    with tempfile.TemporaryDirectory() as folder, hire(f"local:{workers}") as hired:
        start = time.perf_counter()
        outcomes = list(spread(hired.executor, task, [(folder, n) for n in range(number)], hired.number))
        seconds = time.perf_counter() - start
        peak = max(process.memory_info().rss, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    row = {
        "bench": "cluster",
        "size": f"{number} tasks of {SECONDS} s, {workers} workers",
        "total_s": round(seconds, 1),
        "over_the_work": round(seconds / (number * SECONDS / workers), 2),
        "lost": sum(outcome.error is not None for outcome in outcomes),
        "memory_gb": round((peak - before) / 1e9, 2),
    }
    return [row]
