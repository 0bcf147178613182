"""Run bad inputs, each group in a process of its own with limits on memory and time, and judge what came of each."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.console import _is_ours, cause_for_user, user_message
from tests.hostile.cases import Case, cases

__all__ = ["GOOD", "Outcome", "judge", "run"]

GOOD = ("error", "right")
SECONDS = 10  # of the processor, for one input
MEMORY = 2 * 2**30  # more than the process has when it starts


@dataclass(frozen=True)
class Outcome:
    """What came of a bad input.

    Attributes
    ----------
    kind : str
        error (one sentence of ours), right; or: wrong, silent (taken, though it must be refused), bare (the message of
        a library), bug, slow, died.
    """

    group: str
    name: str
    kind: str
    text: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0


def judge(case: Case) -> Outcome:
    """Run a case in this process, in a folder of its own."""
    folder, here = Path(tempfile.mkdtemp()), os.getcwd()
    os.chdir(folder)
    start, before = time.process_time(), _peak(reset=True)
    out, err = io.StringIO(), io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            warnings.simplefilter("ignore")
            kind, text = _kind(case, case.run(folder), err)
    except TooSlow:
        kind, text = "slow", f"over {SECONDS} s"
    except Exception as error:
        kind, text = _judge_error(error)
    finally:
        seconds, peak = time.process_time() - start, _peak()
        os.chdir(here)
        evil = (folder / "bad").exists()
        shutil.rmtree(folder, ignore_errors=True)
    if evil:
        kind, text = "wrong", "a command of the input was run"
    return Outcome(case.group, case.name, kind, text.replace(str(folder), "."), seconds, (peak - before) / 2**20)


def _kind(case: Case, answer: Any, err: io.StringIO) -> tuple[str, str]:
    if isinstance(answer, int) and not isinstance(answer, bool):  # the exit code of a command
        lines = [line for line in err.getvalue().splitlines() if line.startswith("error: ")]
        if answer not in (1, 2) or len(lines) != 1:
            return "wrong", f"exit code {answer}, {len(lines)} errors: {err.getvalue()[-200:]}"
        return ("bug" if "--debug" in lines[0] else "error"), lines[0]
    if answer is not True:
        return "wrong", f"answer {answer!r}"
    return ("silent", "taken") if case.refuse else ("right", "")


def _judge_error(error: Exception) -> tuple[str, str]:
    cause, text = cause_for_user(error), user_message(error)
    if cause is None:
        return "bug", "".join(traceback.format_exception(error))[-600:]
    frames = traceback.extract_tb(cause.__traceback__)
    ours = bool(frames) and _is_ours(frames[-1].filename)
    return ("error" if ours and len(text) > 20 else "bare"), text if ours else f"{frames[-1].filename}: {text}"


def _peak(reset: bool = False) -> int:
    """The largest resident memory of this process since the last reset, bytes."""
    with contextlib.suppress(OSError):
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def run(indices: Iterable[int] | None = None, seed: int = 0) -> list[Outcome]:
    """Judge all cases, or those of some indices, a process a group; a case that ends its process is one outcome."""
    known = cases(seed)
    chosen = range(len(known)) if indices is None else list(indices)
    groups: dict[str, list[int]] = {}
    for index in chosen:
        groups.setdefault(known[index].group, []).append(index)
    return [outcome for waiting in groups.values() for outcome in _group(known, waiting, seed)]


def _group(known: list[Case], waiting: list[int], seed: int) -> Iterator[Outcome]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.hostile.preload"])
    while waiting:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(theirs, waiting, seed), daemon=True)
        process.start()
        theirs.close()
        while waiting:
            try:
                outcome = ours.recv() if ours.poll(3 * SECONDS + 60) else None
            except EOFError:
                outcome = None
            case = known[waiting.pop(0)]
            yield outcome or Outcome(case.group, case.name, "died", "the process ended or hung")
            if outcome is None:
                break
        process.kill()
        process.join()


def _work(pipe: Any, indices: list[int], seed: int) -> None:
    import torch

    torch.set_num_threads(1)
    known = cases(seed)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.signal(signal.SIGPROF, _too_slow)
    for index in indices:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            outcome = judge(known[index])
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        pipe.send(outcome)


class TooSlow(BaseException):
    """Nobody takes it for an error of a file."""


def _too_slow(*_: Any) -> None:
    raise TooSlow
