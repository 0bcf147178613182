"""A batch of tomograms: one after another here, or spread over the workers of a cluster; with the same results."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from custom_transforms.files.claim import Claimed
from custom_transforms.files.json_object import to_json
from custom_transforms.files.names import tomogram_name
from custom_transforms.files.whole_files import atomic_path
from scripts.cluster.spread import spread
from scripts.cluster.workers import hire
from scripts.console import command_output, user_message
from scripts.detection.detector import Detector
from scripts.detection.finished import recorded
from scripts.detection.single import detect_one
from scripts.records.detection import COMMAND, command_line

__all__ = ["Batch", "Done", "Task", "detect_batch"]

Item = Mapping[str, Any]


@dataclass(frozen=True)
class Batch:
    """What a worker builds its detector from, and where it stands: plain data that travels.

    Attributes
    ----------
    options : mapping
        What `Detector` takes.
    output_dir : str
        Where results go.
    account : bool
        Whether the output folder keeps account of what fails.
    folder, command : str
        The folder that paths start from, and the command that a record names, as they are where the batch started.
    """

    options: Mapping[str, Any]
    output_dir: str
    account: bool = True
    folder: str = field(default_factory=os.getcwd)
    command: str = field(default_factory=command_line)


@dataclass(frozen=True)
class Done:
    """What became of one tomogram: a line and facts for the user, and what was said meanwhile; or an error.

    ``failure`` is one sentence, empty where all went well.
    """

    path: str
    line: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    said: str = ""
    failure: str = ""
    error: BaseException | None = field(default=None, compare=False)


def detect_batch(batch: Batch, detector: Detector, items: Sequence[Item], cluster: str | None = None) -> Iterator[Done]:
    """Detect tomograms, items of a datalist; give what became of each as it ends.

    One that fails leaves ``failed/<tomogram>.json`` in the output folder, with the reason, until it succeeds.
    """
    every = _here(detector, items) if cluster is None else _on_workers(batch, detector, items, cluster)
    for done in every:
        if batch.account:
            _note_failure(batch.output_dir, done)
        yield done


def _here(detector: Detector, items: Sequence[Item]) -> Iterator[Done]:
    for number, item in enumerate(items, 1):
        path = str(item["image"])
        print(f"[{number}/{len(items)}] {path}", file=sys.stderr)
        try:
            yield Done(path, detect_one(detector, item), recorded(detector.save, path))
        except Exception as error:
            yield Done(path, failure=user_message(error), error=error)
        gc.collect()


def _on_workers(batch: Batch, detector: Detector, items: Sequence[Item], cluster: str) -> Iterator[Done]:
    number, share = _local_workers(detector, items)
    options = {**batch.options, "memory": share} if cluster.partition(":")[0] == "local" else batch.options
    with hire(cluster, number) as workers:
        if workers.dashboard:
            print(f"Dask's dashboard: {workers.dashboard}", file=sys.stderr)
        task = Task(replace(batch, options=options))
        outcomes = spread(workers.executor, task, [to_json(dict(item)) for item in items], workers.number)
        for outcome in tqdm(outcomes, total=len(items), unit="tomogram", file=sys.stderr):
            done = outcome.result
            if outcome.error is not None:
                done = Done(str(outcome.item["image"]), failure=_reason(outcome.error), error=outcome.error)
            sys.stderr.write(done.said)
            yield done


def _local_workers(detector: Detector, items: Sequence[Item]) -> tuple[int, float | None]:
    """How many workers this machine has room for, and GiB for each: by the plan of the largest tomogram."""
    largest = max(items, key=lambda item: Path(item["image"]).stat().st_size if Path(item["image"]).exists() else 0)
    cores = os.cpu_count() or 1
    try:
        plan = detector.plan(largest)
    except (OSError, ValueError):  # its worker says what is wrong with it
        plan = None
    if plan is None:
        return 1, detector.memory
    fits = max(int(plan.limit // max(plan.memory, 1)), 1)
    number = min(cores, fits, len(items))
    return number, plan.limit / number / 2**30


@dataclass(frozen=True)
class Task:
    """One tomogram on a worker; the networks are built once there, and kept."""

    batch: Batch

    def __call__(self, item: Item, second: bool) -> Done:
        if not os.path.isdir(self.batch.folder):
            host = socket.gethostname()
            raise OSError(f"{self.batch.folder}: no such folder on {host}. Workers need the paths of this machine.")
        os.chdir(self.batch.folder)
        COMMAND.set(self.batch.command)
        errors = io.StringIO()
        # Dask may give a worker several tasks at once; memory and threads are for one
        with _one_at_a_time, contextlib.redirect_stderr(errors), command_output(as_json=True):
            path = str(item["image"])
            try:
                detector = _detector(json.dumps(dict(self.batch.options), sort_keys=True, default=str))
                try:
                    line = _second(detector, item) if second else detect_one(detector, item)
                except (
                    Claimed
                ):  # by a worker that died elsewhere, whose claim looks alive for minutes, or by one that lives
                    line = _second(detector, item)
                return Done(path, line, recorded(detector.save, path), errors.getvalue())
            except (ValueError, ImportError, FileNotFoundError, FileExistsError) as error:
                return Done(path, said=errors.getvalue(), failure=user_message(error))  # as wrong the next time


def _second(detector: Detector, item: Item) -> str:
    """Detect a tomogram that another worker has claimed, aside; its files count if that is not done by then."""
    save, place = detector.save, detector.save.output_dir
    record = save.record(item["image"])
    with tempfile.TemporaryDirectory(dir=place, prefix=".second_") as aside:
        save.output_dir = Path(aside)
        try:
            line = detect_one(detector, item)
            found = save.record(item["image"])
        finally:
            save.output_dir = place
        if not record.exists():
            record.parent.mkdir(parents=True, exist_ok=True)
            for path in sorted(found.parent.iterdir(), key=lambda path: path == found):  # the record comes last
                os.replace(path, record.parent / path.name)
    return line.replace(str(found.parent), str(record.parent))


_one_at_a_time = threading.Lock()


@lru_cache(maxsize=1)
def _detector(options: str) -> Detector:
    return Detector(**json.loads(options))


def _reason(error: BaseException) -> str:
    if type(error).__name__ == "KilledWorker":
        return "its worker died each time it was tried, perhaps of too little memory. Give --memory, or larger jobs."
    return user_message(error)


def _note_failure(output_dir: str, done: Done) -> None:
    """Keep the output folder's account of what failed."""
    path = Path(output_dir).expanduser() / "failed" / f"{tomogram_name(done.path)}.json"
    if not done.failure:
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(OSError):  # the account is no reason to end the batch: the error is told, too
        account = {"tomogram": done.path, "error": done.failure, "when": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(account, indent=2) + "\n")
