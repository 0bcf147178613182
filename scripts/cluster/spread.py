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
    starts = _Starts(executor, function, items)
    waiting, window, looked = deque(range(len(items))), WINDOW, time.monotonic()
    try:
        while starts.running or waiting:
            while waiting and len(starts.running) < window:
                starts.submit(waiting.popleft())
            with suppress(Empty):
                outcome = starts.outcome(starts.ended.get(timeout=look))
                if outcome is not None:
                    yield outcome
            if time.monotonic() - looked >= look:
                looked, number_of_workers = time.monotonic(), workers()
                window = max(WINDOW, WINDOWS * number_of_workers)
                for number in starts.late(number_of_workers, shortest, bool(waiting)):
                    starts.submit(number, second=True)
    finally:
        starts.cancel()


class _Starts(Generic[Item]):
    """The starts of items that have not ended; whoever of one item is first counts."""

    def __init__(self, executor: Executor, function: Callable[[Item, bool], Any], items: Sequence[Item]) -> None:
        self.executor, self.function, self.items = executor, function, items
        self.running: dict[int, dict[Future, float]] = {}  # with their times
        self.ended: SimpleQueue[tuple[int, Future]] = SimpleQueue()
        self.seconds: list[float] = []
        self.twice: set[int] = set()
        self.all_started = time.monotonic()

    def submit(self, number: int, second: bool = False) -> None:
        """Hand over an item."""
        if second:
            self.twice.add(number)
        future = self.executor.submit(_timed, self.function, self.items[number], second)
        self.running.setdefault(number, {})[future] = time.monotonic()
        future.add_done_callback(lambda future: self.ended.put((number, future)))

    def outcome(self, ended: tuple[int, Future]) -> Outcome[Item] | None:
        """What an item's start that ended says of it; None if another start of it was first, or may still end well."""
        number, future = ended
        starts = self.running.get(number, {})
        if starts.pop(future, None) is None:
            return None
        error = OSError(LOST) if future.cancelled() else future.exception()
        if error is not None and starts and not killed(error):
            return None
        for other in self.running.pop(number):
            other.cancel()
        if error is not None:
            return Outcome(self.items[number], number, error=error)
        result, took = future.result()
        self.seconds.append(took)
        return Outcome(self.items[number], number, result)

    def late(self, workers: int, shortest: float, waiting: bool) -> list[int]:
        """Items that take too long, at most one for each idle worker; none as long as items wait for a worker."""
        idle = workers - sum(map(len, self.running.values()))
        if idle < 0 or waiting:
            self.all_started = time.monotonic()  # the last of them gets a worker now, at the earliest
        if idle <= 0 or waiting or not self.seconds:
            return []
        limit = time.monotonic() - max(shortest, STRAGGLES * statistics.median(self.seconds))
        since = {number: max(self.all_started, *starts.values()) for number, starts in self.running.items()}
        return [number for number, start in since.items() if start < limit and number not in self.twice][:idle]

    def cancel(self) -> None:
        """Give up what runs."""
        for starts in self.running.values():
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
