"""Workers, by Dask: of this machine, of a scheduler that runs already, or jobs of a queue system such as SLURM."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

from tqdm.auto import tqdm

from custom_transforms.files.json_object import read_object
from scripts.cluster.elsewhere import Elsewhere
from scripts.cluster.spread import LOST, Outcome, killed, spread

__all__ = ["Workers", "each", "hire", "part_of"]

Item = TypeVar("Item")

INSTALL = "pip install 'dask[distributed]>=2026.3' dask-jobqueue"
JOBS = {
    "slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster",
    "htcondor": "HTCondorCluster", "oar": "OARCluster",
}  # fmt: skip
PATIENCE = 120.0  # seconds without the scheduler
RETRIES = 2  # of a task that failed for a reason that may pass
DIED = "its worker died each time it was tried, perhaps of too little memory. Give --memory, or larger jobs."
# what Dask sets for workers makes networks on a CPU several times slower: one thread, and memory that goes back to the
# system after every layer; and tasks run in a thread, which keeps memory (`scripts.tiling.heap`) only in one arena
NANNY = "distributed.nanny.pre-spawn-environ"
ENVIRON = {
    "MALLOC_TRIM_THRESHOLD_": None, "OMP_NUM_THREADS": None, "MKL_NUM_THREADS": None, "OPENBLAS_NUM_THREADS": None,
    "MALLOC_ARENA_MAX": 1,
}  # fmt: skip
# a task that dies takes no innocent ones with it: each worker holds the tasks it runs, and no more
DASK = {"distributed.scheduler.worker-saturation": 1.0, "distributed.scheduler.allowed-failures": 3, NANNY: ENVIRON}


@dataclass(frozen=True)
class Workers:
    """Workers that wait for tasks.

    Attributes
    ----------
    executor : Executor
        Takes tasks; repeats one whose worker died.
    number : callable
        How many tasks can run at once, now; at least 1, as workers may be on their way.
    most : int
        How many there may be at once, later.
    """

    executor: Executor
    number: Callable[[], int]
    most: int

    def each(
        self, function: Callable[[Item, bool], Any], items: Sequence[Item]
    ) -> Generator[Outcome[Item], None, None]:
        """Run a function of every item, as `spread` does; what it says on a worker's stderr is said here."""
        for outcome in spread(self.executor, Elsewhere(function), items, self.number):
            error, back = outcome.error, outcome.result
            if back is not None:
                sys.stderr.write(back.said)
                error = ValueError(back.error) if back.error else None
            elif killed(error):
                error = OSError(DIED)
            yield Outcome(outcome.item, outcome.number, back and back.result, error)


@contextlib.contextmanager
def hire(cluster: str, local: int = 1) -> Iterator[Workers]:
    """Connect to workers, or start them; they are let go at the end.

    Parameters
    ----------
    cluster : str
        ``local``, ``local:4`` (so many workers), the address of a scheduler (``tcp://host:8786``), a scheduler file
        that ``dask scheduler --scheduler-file`` wrote, or a JSON file with ``"queue_system": "slurm"`` and what
        dask-jobqueue's class takes, such as configs/cluster_slurm.json.
    local : int
        Workers of ``local`` where the machine has no GPU; with GPUs it is one for each.

    Raises
    ------
    ImportError
        If Dask is not installed.
    ValueError, FileNotFoundError
        If ``cluster`` is none of these, or the scheduler does not answer.
    """
    try:
        import dask
        from distributed import Client
    except ImportError as error:
        raise ImportError(f"--cluster needs Dask: {INSTALL}.") from error
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(DASK))
        address, most = stack.enter_context(_address(cluster, local))
        try:
            client = stack.enter_context(Client(address, timeout="20s", set_as_default=False))
        except OSError as error:
            raise ValueError(
                f"--cluster {cluster}: no scheduler answers there. Start one (dask scheduler), or check the address."
            ) from error
        if client.dashboard_link:
            print(f"Dask's dashboard: {client.dashboard_link}", file=sys.stderr)

        heard = time.monotonic()

        def number() -> int:
            nonlocal heard
            if client.status == "running":
                heard = time.monotonic()
                with contextlib.suppress(OSError):
                    return max(client.scheduler_info(n_workers=0)["n_workers"], 1)
            elif time.monotonic() - heard > PATIENCE:  # it should give up by itself, and may not
                raise OSError(LOST)
            return 1

        yield Workers(client.get_executor(pure=False, retries=RETRIES), number, most or number())


@contextlib.contextmanager
def _address(cluster: str, local: int) -> Iterator[tuple[Any, int]]:
    """The scheduler to connect to, started if it must be; and how many workers it may get, 0 if nobody knows."""
    kind, _, count = cluster.partition(":")
    if kind == "local" and (not count or count.isdigit()):
        with _local(int(count) if count else local) as found:
            yield found, 0
    elif "://" in cluster:
        yield cluster, 0
    else:
        settings = read_object(os.path.expanduser(cluster), "--cluster: local, tcp://HOST:PORT or a JSON file")
        if "address" in settings:  # a scheduler file
            yield settings["address"], 0
        else:
            with _jobs(cluster, settings) as found:
                yield found, settings["maximum_jobs"]


def _local(count: int) -> Any:
    """Workers of this machine: one a GPU, each of which it has for itself; without GPUs as many as were asked for."""
    import torch
    from distributed import Nanny, Scheduler, SpecCluster

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = gpus or max(count, 1)
    threads = max((os.cpu_count() or 1) // number, 1)
    env = {f"{library}_NUM_THREADS": threads for library in ("OMP", "MKL", "NUMBA")}

    def options(index: int) -> dict[str, Any]:
        own = {"CUDA_VISIBLE_DEVICES": str(index)} if gpus else {}
        return {"nthreads": 1, "memory_limit": 0, "env": {**env, **own}}

    workers = {index: {"cls": Nanny, "options": options(index)} for index in range(number)}
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": ":0"}}
    return SpecCluster(scheduler=scheduler, workers=workers, silence_logs=40)


@contextlib.contextmanager
def _jobs(path: str, settings: dict[str, Any]) -> Iterator[Any]:
    """Workers that a queue system starts as jobs, as many as there is work, between two numbers."""
    settings = {name: value for name, value in settings.items() if not name.startswith("_")}
    name = str(settings.pop("queue_system", ""))
    if name not in JOBS:
        raise ValueError(f"{path}: queue_system: expected one of {', '.join(JOBS)}, got {name!r}.")
    least, most = settings.pop("minimum_jobs", 0), settings.pop("maximum_jobs", None)
    if not (isinstance(least, int) and isinstance(most, int) and 0 <= least <= most and most > 0):
        raise ValueError(
            f"{path}: expected minimum_jobs and maximum_jobs, whole numbers, the first not above the second, got "
            f"{least!r} and {most!r}."
        )
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        import dask_jobqueue
    except ImportError as error:
        raise ImportError(f"{path}: jobs of a queue system need dask-jobqueue: {INSTALL}.") from error
    signal.signal(signal.SIGINT, interrupt)  # Ctrl-C, which that import takes for itself
    # one task at a time in a job, whatever its cores: they are for the networks
    settings["worker_extra_args"] = [*settings.get("worker_extra_args", []), "--nthreads", "1"]
    # jobs do not see this process's configuration
    environ = f"export DASK_{NANNY.replace('.', '__').replace('-', '_').upper()}={shlex.quote(str(ENVIRON))}"
    settings["job_script_prologue"] = [environ, *settings.get("job_script_prologue", [])]
    try:
        jobs = getattr(dask_jobqueue, JOBS[name])(processes=1, **settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}. See dask-jobqueue's {JOBS[name]} for the names it takes.") from error
    with jobs:
        jobs.adapt(minimum_jobs=least, maximum_jobs=most)
        yield jobs


def each(
    function: Callable[[Item, bool], Any], items: Sequence[Item], cluster: str | None = None
) -> Iterator[Outcome[Item]]:
    """Run a function of every item, as `spread` does: on workers, or without a cluster here, one after another.

    ``local`` gives every core a worker. With a cluster there is a progress bar.
    """
    if cluster is None:
        yield from (Outcome(item, number, function(item, False)) for number, item in enumerate(items))
        return
    with hire(cluster, min(os.cpu_count() or 1, len(items))) as workers:
        yield from tqdm(workers.each(function, items), total=len(items), unit="tomogram", file=sys.stderr)


def part_of(items: list, part: str) -> list:
    """The share of one job of an array: ``3/200`` takes every 200th item, from the third.

    Numbers may count from 0 or from 1: 200/200 is 0/200.

    Raises
    ------
    ValueError
        If ``part`` is no such fraction.

    Examples
    --------
    >>> part_of(list("abcdefg"), "1/3"), part_of(list("abcdefg"), "3/3")
    (['b', 'e'], ['a', 'd', 'g'])
    """
    number, _, total = str(part).partition("/")
    if not (number.isdigit() and total.isdigit() and int(total) > 0 and int(number) <= int(total)):
        raise ValueError(f"--part {part}: expected the number of this job and of all, such as 3/200.")
    return items[int(number) % int(total) :: int(total)]
