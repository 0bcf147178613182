"""What a verb of the command line says and where: results to stdout (as JSON if asked), everything else to stderr."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

__all__ = [
    "ClosedPipe",
    "Collected",
    "cause_for_user",
    "close_quietly",
    "command_output",
    "errors_in_words",
    "heard_warnings",
    "note",
    "tell",
    "user_message",
]

OURS = ("bundle", "custom_transforms", "scripts")
WARNING = "warning: "
KEPT = (WARNING, "error: ")
INNER = re.compile(r"[/\\](?:site|dist)-packages[/\\](?:torch|zarr|numcodecs|openvino)[/\\]")

_collecting: list[Collected] = []


class ClosedPipe(SystemExit):
    """Whoever reads our output is gone. No `Exception`, so that a batch does not go on with its next tomogram."""

    code: int = 141  # 128 + SIGPIPE, as a shell has it

    def __init__(self) -> None:
        super().__init__(self.code)


def close_quietly() -> None:
    """Send what is still to be written to nobody: Python would complain of the closed pipe when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in filter(None, (sys.__stdout__, sys.__stderr__)):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class Collected:
    """The results and warnings of one command, for ``--json`` and for what comes next."""

    def __init__(self, prints: bool = True) -> None:
        self.prints = prints
        self.results: list[dict[str, Any]] = []
        self.warnings: list[str] = []

    @property
    def written(self) -> list[str]:
        """The files and folders that were written, each once."""
        return list(dict.fromkeys(path for result in self.results for path in result.get("written", ())))

    def as_json(self, verb: str, exit_code: int, error: str | None, next_step: str | None = None) -> str:
        """One object: what was done, what was written, and what to know about it."""
        content = {
            "command": verb,
            "exit_code": exit_code,
            "error": error,
            "results": self.results,
            "written": self.written,
            "warnings": list(dict.fromkeys(self.warnings)),
            "next": next_step,
        }
        return json.dumps(content, default=str, ensure_ascii=False, allow_nan=False)


def tell(text: str, written: Any = (), **facts: Any) -> None:
    """Say a result of the command: a line on stdout, or with ``--json`` an entry of its object.

    Parameters
    ----------
    text : str
        The line for people.
    written : iterable of path
        Files and folders that were written.
    **facts
        What a program wants to know beside the text: counts, scores.

    Examples
    --------
    >>> tell("picks.tbl: 3 particles", written=["picks.tbl"], particles=3)
    picks.tbl: 3 particles
    """
    if _collecting:
        paths = [str(Path(path)) for path in written]
        _collecting[-1].results.append({"text": text, **_finite(facts), **({"written": paths} if paths else {})})
    if not _collecting or _collecting[-1].prints:
        try:
            print(text, flush=True)
        except BrokenPipeError:
            raise ClosedPipe from None


def note(text: str) -> None:
    """Say on stderr what was assumed or left out; ``--quiet`` does not show it."""
    print(f"note: {text}", file=sys.stderr)


@contextlib.contextmanager
def command_output(as_json: bool = False, quiet: bool = False) -> Iterator[Collected]:
    """Route what a command says while it runs; see ``--json`` and ``--quiet`` in the help.

    Warnings of this project become one line on stderr, without a file and a line of code. With ``quiet`` only warnings
    and errors reach stderr. With ``as_json`` nothing reaches stdout: it is collected.
    """
    found = Collected(prints=not as_json)
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.showwarning = _one_line(warnings.showwarning)
        stack.enter_context(contextlib.redirect_stderr(_Errors(sys.stderr, quiet, found)))
        if quiet:
            before = logging.root.manager.disable
            logging.disable(max(before, logging.INFO))
            stack.callback(logging.disable, before)
        _collecting.append(found)
        stack.callback(_collecting.pop)
        if as_json:
            stack.enter_context(contextlib.redirect_stdout(_Lines(lambda line: tell(line))))
        yield found


@contextlib.contextmanager
def heard_warnings() -> Iterator[list[str]]:
    """List what concerns the user of the warnings that arise while the block runs; all of them go their way, too.

    That is each `UserWarning`, once, but for those that libraries under ours say to themselves.
    """
    heard: list[str] = []
    with warnings.catch_warnings():
        before = warnings.showwarning

        def hear(message: Any, category: type, filename: str, *rest: Any, **named: Any) -> None:
            text = " ".join(str(message).splitlines())
            if issubclass(category, UserWarning) and not INNER.search(filename) and text not in heard:
                heard.append(text)
            before(message, category, filename, *rest, **named)

        warnings.showwarning = hear
        yield heard


class _Lines(io.TextIOBase):
    """Calls a function for every whole line that is written."""

    def __init__(self, use: Callable[[str], None]) -> None:
        self.use, self.rest = use, ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            if line.strip():
                self.use(line)
        return len(text)


class _Errors(io.TextIOBase):
    """stderr that remembers warnings, and with ``quiet`` lets nothing else through but errors."""

    def __init__(self, stream: TextIO, quiet: bool, found: Collected) -> None:
        self.stream, self.quiet, self.found, self.rest = stream, quiet, found, ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            said = line.rpartition("\r")[2].strip()  # a progress bar goes back to the line's beginning
            if said.startswith(WARNING):
                self.found.warnings.append(said.removeprefix(WARNING))
            if self.quiet and said.startswith(KEPT):
                self._pass_on(said + "\n")
        return len(text) if self.quiet else self._pass_on(text)

    def _pass_on(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except BrokenPipeError:
            raise ClosedPipe from None

    def flush(self) -> None:
        try:
            self.stream.flush()
        except BrokenPipeError:
            raise ClosedPipe from None

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding


def _one_line(before: Callable) -> Callable:
    def show(message: Any, category: type, filename: str, *rest: Any, **named: Any) -> None:
        if category.__module__.partition(".")[0] in OURS or _is_ours(filename):
            print(f"{WARNING}{' '.join(str(message).split())}", file=sys.stderr)
        else:
            before(message, category, filename, *rest, **named)

    return show


def _is_ours(filename: str) -> bool:
    root = Path(__file__).parents[1]
    return any(os.path.abspath(filename).startswith(str(root / name) + os.sep) for name in OURS)


def _finite(facts: Any) -> Any:
    """Facts as JSON has them: plain numbers and lists, and null for NaN."""
    facts = facts.tolist() if hasattr(facts, "tolist") else facts  # numpy, which is not imported for this
    if isinstance(facts, Mapping):
        return {str(key): _finite(value) for key, value in facts.items()}
    if isinstance(facts, (list, tuple)):
        return [_finite(value) for value in facts]
    return None if isinstance(facts, float) and not math.isfinite(facts) else facts


def user_message(error: BaseException) -> str:
    """Find the message made for the user below MONAI's wrapping ("applying transform ..."), on one line."""
    cause = cause_for_user(error)
    if cause is not None:
        return " ".join(str(cause).split())
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())} (run again with --debug to see where)"


def cause_for_user(error: BaseException | None) -> BaseException | None:
    """The first error in a chain of causes whose words are for the user; None if there is only a bug."""
    while error is not None and not isinstance(error, (ValueError, OSError, ImportError)):
        error = error.__cause__
    return error


def errors_in_words() -> None:
    """End ``python -m monai.bundle`` with our one sentence where this project raised the error; part of the configs.

    A bug, and an error that another library raised, keep their traceback. Other programs are left alone.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None and spec.name.startswith("monai.bundle."):
        sys.excepthook = _in_words(sys.excepthook)


def _in_words(before: Callable) -> Callable:
    def show(category: type, error: BaseException, trace: TracebackType | None) -> None:
        cause = cause_for_user(error)
        frames = [] if cause is None else traceback.extract_tb(cause.__traceback__)
        if frames and _is_ours(frames[-1].filename):
            print(f"error: {user_message(error)}", file=sys.stderr)
        else:
            before(category, error, trace)

    return show
