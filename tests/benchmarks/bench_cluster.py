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


def measure(number: int, failures: bool, workers: int = 2) -> dict[str, Any]:
    """What a task costs beside its work; memory of this process, client and scheduler, at every fifth of the way."""
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as folder, hire(f"local:{workers}") as hired:
        list(hired.each(task, [(folder, 0)] * (4 * workers)))  # each worker imports what it needs
        items = [(folder, n if failures else 100 * n) for n in range(number)]
        start, before, lost, memory = time.perf_counter(), process.cpu_times(), 0, [process.memory_info().rss]
        for count, outcome in enumerate(hired.each(task, items), 1):
            lost += outcome.error is not None
            if count % (number // 5) == 0:
                memory.append(process.memory_info().rss)
        seconds, after = time.perf_counter() - start, process.cpu_times()
    computed = after.user + after.system - before.user - before.system
    return {
        "bench": "cluster",
        "size": f"{number} tasks of {SECONDS} s, {workers} workers{', failures' if failures else ''}",
        "total_s": round(seconds, 1),
        "over_a_task_ms": round(1000 * (seconds / number - SECONDS / workers), 1),
        "computed_a_task_ms": round(1000 * computed / number, 1),
        "lost": lost,
        "memory_gb": " ".join(f"{size / 1e9:.3f}" for size in memory),
    }


def run(full: bool = False) -> list[dict[str, Any]]:
    """Two rows, without failures and with."""
    return [measure(10_000 if full else 1_000, failures) for failures in (False, True)]
