"""Tasks over workers: each gives its outcome once, whatever dies, fails or lags."""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from custom_transforms.files.limits import PROCESS_LIMIT, available_memory
from scripts.cluster import workers
from scripts.cluster.spread import WINDOW, spread
from scripts.cluster.workers import hire, part_of


def double_or_fail(item, second):
    if item % 10 == 3:
        raise ValueError(f"{item} is bad")
    return 2 * item


def test_every_item_has_one_outcome_and_a_failure_costs_nobody_else():
    with ThreadPoolExecutor(3) as pool:
        outcomes = list(spread(pool, double_or_fail, list(range(47)), lambda: 3))
    assert sorted(outcome.item for outcome in outcomes) == list(range(47))
    failed = {outcome.item: str(outcome.error) for outcome in outcomes if outcome.error is not None}
    assert failed == {number: f"{number} is bad" for number in (3, 13, 23, 33, 43)}
    assert all(outcome.result == 2 * outcome.item for outcome in outcomes if outcome.error is None)


@pytest.mark.parametrize("second_fails", [False, True])
def test_a_straggler_is_started_a_second_time_and_whoever_is_first_counts(second_fails):
    calls, release = [], threading.Event()

    def work(item, second):
        calls.append((item, second))
        if item == 1:
            if second and second_fails:
                release.set()
                raise RuntimeError("no better here")
            if not second:
                release.wait(20)
        return f"{item} {second}"

    with ThreadPoolExecutor(3) as pool:
        outcomes = {}
        for outcome in spread(pool, work, [0, 1, 2], lambda: 3, shortest=0.2, look=0.05):
            outcomes[outcome.item] = outcome
            if len(outcomes) == 3:
                release.set()
    assert calls.count((1, True)) == 1 and calls.count((1, False)) == 1
    assert outcomes[1].result == ("1 False" if second_fails else "1 True") and len(outcomes) == 3


class KilledWorker(Exception):
    pass


def test_a_task_that_killed_its_worker_every_time_is_not_waited_for_elsewhere():
    second_runs, release = threading.Event(), threading.Event()

    def work(item, second):
        if item and second:
            second_runs.set()
            release.wait(20)
        elif item:
            second_runs.wait(20)
            raise KilledWorker
        return item

    with ThreadPoolExecutor(3) as pool:
        outcomes = list(spread(pool, work, [0, 1], lambda: 3, shortest=0.1, look=0.05))
        assert not release.is_set()
        release.set()
    assert [type(outcome.error) for outcome in outcomes] == [type(None), KilledWorker]


def test_tasks_that_wait_for_a_worker_are_no_stragglers():
    calls = []

    def work(item, second):
        calls.append(second)
        time.sleep(0.05)

    with ThreadPoolExecutor(1) as pool:
        list(spread(pool, work, list(range(12)), lambda: 1, shortest=0.0, look=0.01))
    assert calls == [False] * 12


def test_the_parts_of_an_array_are_all_items_once_counted_from_0_or_from_1():
    items = list(range(23))
    for first in (0, 1):
        parts = [part_of(items, f"{number}/5") for number in range(first, first + 5)]
        assert sorted(item for part in parts for item in part) == items
    for wrong in ("6/5", "1", "a/5", "1/0", "-1/5"):
        with pytest.raises(ValueError, match="expected the number of this job and of all, such as 3/200"):
            part_of(items, wrong)


def die_once(item, second):
    folder, number = item
    mark = os.path.join(folder, f"died_{number}")
    if number == 2 and not os.path.exists(mark):
        open(mark, "w").close()
        os._exit(1)  # as the kernel ends a process that takes too much memory
    if number == 4:
        raise ValueError("bad file")
    return os.environ.get("MALLOC_TRIM_THRESHOLD_"), os.environ["MALLOC_ARENA_MAX"], os.environ["OMP_NUM_THREADS"]


def memory_and_limit(item, second):
    return available_memory(), PROCESS_LIMIT.get()


@pytest.mark.slow
def test_a_worker_that_dies_costs_neither_its_task_nor_others(tmp_path):
    pytest.importorskip("distributed")
    with hire("local:2") as hired:
        assert hired.number() == 2
        items = [(str(tmp_path), number) for number in range(8)]
        outcomes = {outcome.item[1]: outcome for outcome in spread(hired.executor, die_once, items, hired.number)}
    assert sorted(outcomes) == list(range(8))
    assert [number for number, outcome in outcomes.items() if outcome.error is not None] == [4]
    assert outcomes[0].result == (None, "1", str(max((os.cpu_count() or 1) // 2, 1))), (
        "Dask's defaults make networks slow"
    )


def test_plans_of_a_worker_stay_below_the_memory_that_it_has():
    distributed = pytest.importorskip("distributed")
    options = {"processes": False, "n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0"}
    with (
        distributed.LocalCluster(**options, memory_limit="5GB") as cluster,
        hire(cluster.scheduler_address) as hired,
    ):
        [outcome] = hired.each(memory_and_limit, [0])
    left, limit = outcome.result
    assert limit == 4e9 and left <= limit


def test_workers_of_jobs_use_all_their_cores(tmp_path, monkeypatch):
    pytest.importorskip("distributed")

    def cluster(**settings):
        raise ValueError(" | ".join(settings["job_script_prologue"]))

    monkeypatch.setitem(sys.modules, "dask_jobqueue", SimpleNamespace(SLURMCluster=cluster))
    own = {"queue_system": "slurm", "maximum_jobs": 2, "job_script_prologue": ["module load python"]}
    (tmp_path / "c.json").write_text(json.dumps(own))
    said = r"PRE_SPAWN_ENVIRON='\{.*OMP_NUM_THREADS.*: None.* \| module load python"
    with pytest.raises(ValueError, match=said), hire(str(tmp_path / "c.json")):
        pass


@pytest.mark.parametrize(
    "content,said",
    [
        ({"queue_system": "cron"}, "queue_system: expected one of slurm, pbs, lsf, sge"),
        ({"queue_system": "slurm", "maximum_jobs": 0}, "expected minimum_jobs and maximum_jobs"),
        ({"queue_system": "slurm", "maximum_jobs": 2, "cores": 2, "memory": "4GB", "quue": 1}, "quue"),
    ],
)
def test_a_cluster_file_that_cannot_be_is_an_error_that_names_it_and_leaves_ctrl_c_alone(content, said, tmp_path):
    pytest.importorskip("distributed")
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=said), hire(str(tmp_path / "c.json")):
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_cluster_that_is_no_file_and_a_scheduler_that_is_not_there(tmp_path):
    pytest.importorskip("distributed")
    with pytest.raises(FileNotFoundError, match="--cluster"), hire(str(tmp_path / "nothing.json")):
        pass


def test_a_task_that_a_scheduler_lost_is_an_error_that_says_to_start_again():
    class Gone(ThreadPoolExecutor):
        def submit(self, function, work, item, second):
            if item == 1:
                return super().submit(function, work, item, second)
            future = Future()
            future.cancel()
            return future

    with Gone(1) as pool:
        lost, done = sorted(spread(pool, double_or_fail, [0, 1], lambda: 1), key=lambda outcome: outcome.item)
    assert done.result == 2 and isinstance(lost.error, OSError)
    assert "Start the same command again" in str(lost.error)


def test_tasks_are_handed_over_a_few_at_a_time():
    held = []

    class Counts(ThreadPoolExecutor):
        def submit(self, *arguments):
            held.append(self._work_queue.qsize())
            return super().submit(*arguments)

    with Counts(2) as pool:
        outcomes = list(spread(pool, lambda item, second: item, list(range(500)), lambda: 2))
    assert sorted(outcome.result for outcome in outcomes) == list(range(500)) and max(held) < WINDOW


def test_a_client_without_its_scheduler_for_too_long_is_an_error_and_for_a_while_is_none(monkeypatch):
    class Client(contextlib.AbstractContextManager):
        status, dashboard_link = "running", ""

        def __init__(self, *about, **more):
            pass

        def __exit__(self, *about):
            pass

        def scheduler_info(self, n_workers):
            return {"n_workers": 3}

        def get_executor(self, **more):
            return ThreadPoolExecutor(1)

    monkeypatch.setattr(pytest.importorskip("distributed"), "Client", Client)
    with hire("tcp://nowhere:1") as hired:
        assert hired.most == hired.number() == 3
        Client.status = "connecting"
        assert hired.number() == 1
        monkeypatch.setattr(workers, "PATIENCE", -1.0)
        with pytest.raises(OSError, match="the scheduler of the workers is gone.* Start the same command again"):
            hired.number()
        Client.status = "running"
        assert hired.number() == 3
