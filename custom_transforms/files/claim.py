"""A folder that one process writes to at a time, also where the folder is shared by several machines."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

from custom_transforms.files.json_object import parse_json
from custom_transforms.files.whole_files import check_folder

__all__ = ["CLAIM", "Claimed", "claimed", "clear_claim"]

CLAIM = ".claim.json"
LONGEST = 10_000  # letters of it
HEARTBEAT = 30.0  # seconds between the signs of life of a claim
STALE = 300.0  # a claim of another machine without one for so long is nobody's
_held: set[Path] = set()  # by this process, whose inner calls are free


class Claimed(FileExistsError):
    """Another process has the folder; ``owner`` is what its claim says: host, process, started, run."""

    owner: Mapping[str, str] = MappingProxyType({})


@contextmanager
def claimed(folder: str | os.PathLike, option: str = "--output_dir", run: str = "") -> Iterator[None]:
    """Claim a folder for this process while the block runs; a second process gets an error.

    The claim is a file with machine, process and start time, locked as long as the process lives. A killed process
    leaves the file but not the lock: the next one takes over, on the same machine at once, on another one, where locks
    may not reach, after five minutes. Folders that are made for it and stay empty are removed.

    Parameters
    ----------
    folder : path
        Made if it is missing.
    option : str
        What the user gives the folder with, for the message.
    run : str
        Which of several processes belong together, for `Claimed`.

    Raises
    ------
    Claimed
        If another process has it; says which.
    OSError
        If the folder cannot be written to.
    """
    folder = Path(folder).absolute()
    if folder in _held:
        yield
        return
    made = [one for one in (folder, folder.parent) if not one.exists()]
    for one in (folder.parent, folder):
        check_folder(one, option)
    stop = threading.Event()
    try:
        with _own(folder / CLAIM, run) as claim:
            _held.add(folder)
            threading.Thread(target=_signs_of_life, args=(folder / CLAIM, stop), daemon=True).start()
            try:
                yield
            finally:
                stop.set()
                _held.discard(folder)
                Path(claim.name).unlink(missing_ok=True)
    finally:
        for one in made:
            with suppress(OSError):  # it is not empty: there are results
                one.rmdir()


def clear_claim(folder: str | os.PathLike) -> None:
    """Remove the claim that a process left which was killed after its last file; one that is held stays."""
    if (Path(folder) / CLAIM).exists():
        with suppress(OSError), claimed(folder):
            pass


@contextmanager
def _own(path: Path, run: str) -> Iterator[TextIO]:
    while True:
        with open(path, "a+") as claim:
            try:
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = True
            except BlockingIOError:
                raise _taken(path, _read(claim)) from None
            except OSError:  # no locks in this file system: the signs of life decide
                locked = False
            if not path.exists() or os.stat(path).st_ino != os.fstat(claim.fileno()).st_ino:
                continue  # its owner removed it meanwhile
            owner = _read(claim)
            elsewhere = owner.get("host", socket.gethostname()) != socket.gethostname()
            if owner and (elsewhere or not locked) and time.time() - os.fstat(claim.fileno()).st_mtime < STALE:
                raise _taken(path, owner)
            claim.truncate(0)
            started = time.strftime("%Y-%m-%d %H:%M:%S")
            content = {"host": socket.gethostname(), "process": os.getpid(), "started": started, "run": run}
            json.dump(content, claim)
            claim.flush()
            yield claim
            return


def _read(claim: TextIO) -> dict[str, str]:
    claim.seek(0)
    with suppress(ValueError):
        owner = parse_json(claim.read(LONGEST), CLAIM)
        return owner if isinstance(owner, dict) else {}
    return {}


def _taken(path: Path, owner: dict[str, str]) -> Claimed:
    who = ", ".join(f"{name} {owner[name]}" for name in ("host", "process", "started") if name in owner)
    error = Claimed(
        f"{path.parent}: another process writes here now ({who}). Wait for it, or choose another folder; "
        f"if it runs no more, delete {path.name} there."
    )
    error.owner = owner
    return error


def _signs_of_life(path: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT):
        with suppress(OSError):
            os.utime(path)
