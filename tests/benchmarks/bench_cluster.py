"""What spreading costs: many tasks that take no time to speak of, through the code that spreads tomograms."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

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
    """Two rows, with failures and without: what a task costs beside its work, and memory of this process over time."""
    number, workers = (10_000 if full else 1_000), 2
    process, rows = psutil.Process(), []
    for failures in (True, False):
        with tempfile.TemporaryDirectory() as folder, hire(f"local:{workers}") as hired:
            items = [(folder, n if failures else 100 * n) for n in range(number)]
            start, lost, memory = time.perf_counter(), 0, [process.memory_info().rss]
            for count, outcome in enumerate(hired.each(task, items), 1):
                lost += outcome.error is not None
                if count % (number // 5) == 0:
                    memory.append(process.memory_info().rss)
            seconds = time.perf_counter() - start
        row = {
            "bench": "cluster",
            "size": f"{number} tasks of {SECONDS} s, {workers} workers{', failures' if failures else ''}",
            "total_s": round(seconds, 1),
            "over_a_task_ms": round(1000 * (seconds / number - SECONDS / workers), 1),
            "lost": lost,
            "memory_gb": " ".join(f"{size / 1e9:.2f}" for size in memory),
        }
        rows.append(row)
    return rows
