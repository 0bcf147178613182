"""Tasks over an executor: results as they come, stragglers started twice, failures told apart from each other.

The seam to the engine is `concurrent.futures.Executor`: Dask gives one (`scripts.cluster.workers`), tests take threads.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ["Outcome", "in_order", "spread"]

STRAGGLES = 5  # times the median: then it is started a second time
SHORTEST = 60.0  # seconds; what is done sooner is no straggler
LOOK = 5.0  # seconds between two looks for stragglers

Item = TypeVar("Item")


@dataclass(frozen=True)
class Outcome(Generic[Item]):
    """What became of a task.

    Attributes
    ----------
    item
        What it was about.
    number : int
        Its place among the items.
    result
        What the function returned, None if it failed.
    error : BaseException or None
    """

    item: Item
    number: int = 0
    result: Any = None
    error: BaseException | None = None


@dataclass
class _Running:
    number: int
    since: float


def spread(
    executor: Executor,
    function: Callable[[Item, bool], Any],
    items: Sequence[Item],
    workers: Callable[[], int],
    shortest: float = SHORTEST,
    look: float = LOOK,
) -> Iterator[Outcome[Item]]:
    """Run a function of every item on an executor; give the outcomes as they come, one an item.

    Near the end, when every task that is left has a worker and others idle, a task that runs longer than five times the
    median of those that are done is started a second time. Whoever is first counts.

    Parameters
    ----------
    executor : Executor
        Retries are its own matter: an error that arrives here is the last.
    function : callable
        ``function(item, second)``; ``second`` says that the task may be running elsewhere, too. Must be idempotent.
    items : sequence
    workers : callable
        How many tasks can run at once, now.
    shortest, look : float
        Seconds: a task is no straggler before, and between two looks for stragglers.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(2) as pool:
    ...     sorted(outcome.result for outcome in spread(pool, lambda item, second: 2 * item, [1, 2, 3], lambda: 2))
    [2, 4, 6]
    """
    running: dict[Future, _Running] = {}
    seconds: list[float] = []
    twice: set[int] = set()
    all_started = time.monotonic()

    def submit(number: int, second: bool = False) -> None:
        running[executor.submit(_timed, function, items[number], second)] = _Running(number, time.monotonic())

    for number in range(len(items)):
        submit(number)
    try:
        while running:
            crowded = len(running) > workers()
            done, _ = wait(running, timeout=look, return_when=FIRST_COMPLETED)
            if crowded:  # the last of them got a worker now, at the earliest
                all_started = time.monotonic()
            for future in done:
                task = running.pop(future, None)
                if task is None:
                    continue  # its other start was first
                others = [other for other, its in running.items() if its.number == task.number]
                error = future.exception()
                if error is not None and others:
                    continue  # the other start may still end well
                for other in others:
                    running.pop(other)
                    other.cancel()
                if error is None:
                    result, took = future.result()
                    seconds.append(took)
                    yield Outcome(items[task.number], task.number, result)
                else:
                    yield Outcome(items[task.number], task.number, error=error)
            limit = max(shortest, STRAGGLES * statistics.median(seconds)) if seconds else float("inf")
            late = [its for its in running.values() if time.monotonic() - max(its.since, all_started) > limit]
            for task in [its for its in late if its.number not in twice][: max(workers() - len(running), 0)]:
                twice.add(task.number)
                submit(task.number, second=True)
    finally:
        for future in running:
            future.cancel()


def in_order(outcomes: Iterable[Outcome[Item]]) -> Iterator[Any]:
    """The results in the order of the items; those that come early wait. The first error that comes ends it.

    Examples
    --------
    >>> list(in_order([Outcome("b", 1, "B"), Outcome("a", 0, "A")]))
    ['A', 'B']
    """
    early: dict[int, Any] = {}
    wanted = 0
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
        early[outcome.number] = outcome.result
        while wanted in early:
            yield early.pop(wanted)
            wanted += 1


def _timed(function: Callable[[Item, bool], Any], item: Item, second: bool) -> tuple[Any, float]:
    start = time.monotonic()
    return function(item, second), time.monotonic() - start
