"""A function as a worker runs it: where the command stands, one at a time; what it says comes back with the result."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from custom_transforms.files.limits import PROCESS_LIMIT
from scripts.console import cause_for_user, command_output, user_message

__all__ = ["Elsewhere", "Returned"]

# as wrong the next time, so that nobody tries again
LASTING = (ValueError, ImportError, FileNotFoundError, FileExistsError)
SAFE = 0.8  # of a worker's memory: beyond it Dask gives it no more tasks, and soon ends it
_one_at_a_time = threading.Lock()  # Dask may give a worker several tasks at once; memory and threads are for one


@dataclass(frozen=True)
class Returned:
    """What comes back: the result or one sentence of error, and what was said on stderr."""

    result: Any = None
    said: str = ""
    error: str = ""


@dataclass(frozen=True)
class Elsewhere:
    """A function of an item, to be called in another process, perhaps on another machine.

    Attributes
    ----------
    function : callable
        ``function(item, second)``, see `scripts.cluster.spread.spread`.
    folder : str
        The folder that paths start from.
    """

    function: Callable[[Any, bool], Any]
    folder: str = field(default_factory=os.getcwd)

    def __call__(self, item: Any, second: bool) -> Returned:
        """Call it; an error that may pass, such as a disk that is away, is raised, so that the engine tries again."""
        if not os.path.isdir(self.folder):
            host = socket.gethostname()
            raise OSError(f"{self.folder}: no such folder on {host}. Workers need the paths of this machine.")
        said = io.StringIO()
        with _one_at_a_time, contextlib.redirect_stderr(said), command_output(as_json=True):
            os.chdir(self.folder)
            PROCESS_LIMIT.set(_memory_limit())
            try:
                return Returned(self.function(item, second), said.getvalue())
            except Exception as error:
                cause = cause_for_user(error)  # causes do not travel
                if isinstance(cause, LASTING):
                    return Returned(None, said.getvalue(), user_message(error))
                raise cause or error from None


def _memory_limit() -> int | None:
    """Bytes that the worker which runs this may use, None where nobody limits it."""
    if "distributed" not in sys.modules:
        return None
    from distributed import get_worker

    try:
        limit = get_worker().memory_manager.memory_limit
    except ValueError:  # this is no worker
        return None
    return None if limit is None else int(SAFE * limit)
