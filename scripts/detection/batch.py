"""A batch of tomograms: one after another here, or spread over the workers of a cluster; with the same results."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from custom_transforms.files.claim import Claimed
from custom_transforms.files.json_object import to_json
from custom_transforms.files.names import tomogram_name
from custom_transforms.files.whole_files import atomic_path, temporary_tag
from scripts.cluster.workers import hire
from scripts.console import note, user_message
from scripts.detection.detector import Detector
from scripts.detection.finished import recorded
from scripts.detection.one_volume import NetworkElsewhere, detector_of
from scripts.detection.scratch import scratch_folder
from scripts.detection.single import detect_one
from scripts.records.detection import COMMAND, command_line

__all__ = ["Batch", "Done", "Task", "detect_batch"]

Item = Mapping[str, Any]

PAUSE = 5.0  # seconds between two looks whether another batch is done


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
    command : str
        What a record names as the command.
    run : str
        Tells claims of this batch's workers from those of others.
    """

    options: Mapping[str, Any]
    output_dir: str
    account: bool = True
    command: str = field(default_factory=command_line)
    run: str = field(default_factory=temporary_tag)


@dataclass(frozen=True)
class Done:
    """What became of one tomogram: a line and facts for the user; or an error.

    ``failure`` is one sentence, empty where all went well; ``claimed`` says who has it, where that is another batch.
    """

    path: str
    line: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""
    claimed: str = ""
    error: BaseException | None = field(default=None, compare=False)


def detect_batch(batch: Batch, detector: Detector, items: Sequence[Item], cluster: str | None = None) -> Iterator[Done]:
    """Detect tomograms, items of a datalist; give what became of each as it ends.

    One that another batch is at comes last: when that is done with it, or gone. One that fails leaves
    ``failed/<tomogram>.json`` in the output folder, with the reason, until it succeeds.
    """
    every = _here(batch, detector, items) if cluster is None else _on_workers(batch, detector, items, cluster)
    for done in every:
        if batch.account:
            _note_failure(batch.output_dir, done)
        yield done


def _here(batch: Batch, detector: Detector, items: Sequence[Item]) -> Iterator[Done]:
    begun = set()

    def detect(left: Sequence[Item]) -> Iterator[Done]:
        for item in left:
            path = str(item["image"])
            if path not in begun:
                begun.add(path)
                print(f"[{len(begun)}/{len(items)}] {path}", file=sys.stderr)
            try:
                yield Done(path, detect_one(detector, item, batch.run), recorded(detector.save, path))
            except Exception as error:
                claimed = str(error) if isinstance(error, Claimed) and batch.account else ""
                yield Done(path, failure=user_message(error), claimed=claimed, error=error)
            gc.collect()

    yield from _others_last(detect, items)


def _on_workers(batch: Batch, detector: Detector, items: Sequence[Item], cluster: str) -> Iterator[Done]:
    number, share = _local_workers(detector, items)
    options = {**batch.options, "memory": share} if cluster.partition(":")[0] == "local" else batch.options
    task = Task(replace(batch, options=options))

    def detect(left: Sequence[Item]) -> Iterator[Done]:
        for outcome in workers.each(task, left):
            path, error = str(outcome.item["image"]), outcome.error
            yield outcome.result if error is None else Done(path, failure=user_message(error), error=error)

    with hire(cluster, number) as workers:
        shared = [item for item in items if len(items) < workers.most and _is_streamed(detector, item)]
        if shared:  # its tiles and blocks over all workers
            detector.blocks_at_once = workers.most if cluster.partition(":")[0] == "local" else 1
            place = batch.output_dir if detector.scratch_dir is None else detector.scratch_dir
            detector.network_elsewhere = lambda one: NetworkElsewhere(workers, batch.options, place, one.name)
            yield from _here(batch, detector, shared)
        outcomes = _others_last(detect, [to_json(dict(item)) for item in items if item not in shared])
        yield from tqdm(outcomes, total=len(items) - len(shared), unit="tomogram", file=sys.stderr)


def _is_streamed(detector: Detector, item: Item) -> bool:
    try:
        plan = detector.plan(item)
    except (OSError, ValueError):  # its worker says what is wrong with it
        return False
    return plan is not None and plan.path == "streamed"


def _others_last(detect: Callable[[Sequence[Item]], Iterator[Done]], items: Sequence[Item]) -> Iterator[Done]:
    """Detect tomograms; those that another batch has are tried again until it is done with them, or gone."""
    left, known = list(items), set()
    while left:
        later = set()
        for done in detect(left):
            if not done.claimed:
                yield done
                continue
            later.add(done.path)
            if done.path not in known:
                note(f"{done.path}: waits, for {done.claimed}")
        known |= later
        left = [item for item in left if str(item["image"]) in later]
        time.sleep(PAUSE if left else 0)


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
        COMMAND.set(self.batch.command)
        path = str(item["image"])
        detector = detector_of(self.batch.options)
        try:
            line = _second(detector, item) if second else detect_one(detector, item, self.batch.run)
        except Claimed as error:
            if error.owner.get("run") != self.batch.run:  # which is not of this batch
                return Done(path, claimed=str(error))
            # by a worker that died elsewhere, whose claim looks alive for minutes, or by one that lives
            line = _second(detector, item)
        return Done(path, line, recorded(detector.save, path))


def _second(detector: Detector, item: Item) -> str:
    """Detect a tomogram that another worker has claimed, aside; its files count if that is not done by then."""
    save, place = detector.save, detector.save.output_dir
    record = save.record(item["image"])
    with scratch_folder(place, f"{record.stem}_second") as aside:  # which a killed worker's next try removes
        save.output_dir = aside
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
