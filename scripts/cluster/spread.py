"""Tasks over an executor: results as they come, stragglers started twice, failures told apart from each other.

The seam to the engine is `concurrent.futures.Executor`: Dask gives one (`scripts.cluster.workers`), tests take threads.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

__all__ = ["LOST", "Outcome", "in_order", "killed", "spread"]

STRAGGLES = 5  # times the median: then it is started a second time
SHORTEST = 60.0  # seconds; what is done sooner is no straggler
LOST = (
    "the scheduler of the workers is gone, or was started again, and lost this task. Start the same command again: "
    "what is done stays."
)
# tasks that are handed over at once, at least, and for each worker: ten thousand at once keep a busy machine from
# answering its scheduler, and need memory there
WINDOW, WINDOWS = 64, 4
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
    running: dict[int, dict[Future, float]] = {}  # starts of an item that have not ended, with their times
    ended: SimpleQueue[tuple[int, Future]] = SimpleQueue()
    seconds: list[float] = []
    twice: set[int] = set()
    all_started = looked = time.monotonic()

    def submit(number: int, second: bool = False) -> None:
        future = executor.submit(_timed, function, items[number], second)
        running.setdefault(number, {})[future] = time.monotonic()
        future.add_done_callback(lambda future: ended.put((number, future)))

    waiting, window = deque(range(len(items))), WINDOW
    try:
        while running or waiting:
            while waiting and len(running) < window:
                submit(waiting.popleft())
            with suppress(Empty):
                number, future = ended.get(timeout=look)
                starts = running.get(number, {})
                if starts.pop(future, None) is None:
                    continue  # its other start was first
                error = OSError(LOST) if future.cancelled() else future.exception()
                if error is not None and starts and not killed(error):
                    continue  # the other start may still end well
                for other in running.pop(number):
                    other.cancel()
                if error is None:
                    result, took = future.result()
                    seconds.append(took)
                    yield Outcome(items[number], number, result)
                else:
                    yield Outcome(items[number], number, error=error)
            now = time.monotonic()
            if now - looked < look:
                continue
            looked, number_of_workers = now, workers()
            window = max(WINDOW, WINDOWS * number_of_workers)
            idle = number_of_workers - sum(map(len, running.values()))
            if idle < 0 or waiting:
                all_started = now  # the last of them gets a worker now, at the earliest
            elif idle > 0 and seconds:
                limit = max(shortest, STRAGGLES * statistics.median(seconds))
                since = {number: max(all_started, *starts.values()) for number, starts in running.items()}
                late = [number for number, start in since.items() if now - start > limit and number not in twice]
                for number in late[:idle]:
                    twice.add(number)
                    submit(number, second=True)
    finally:
        for starts in running.values():
            for future in starts:
                future.cancel()


def killed(error: BaseException | None) -> bool:
    """Whether a task ended because its worker died every time that the engine tried it; it would elsewhere, too."""
    return type(error).__name__ == "KilledWorker"  # of Dask, which need not be installed


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
