"""Temporary folders for volumes larger than memory: gone when the work ends, or when it begins again after a kill."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from custom_transforms.files.whole_files import naming_the_full_disk

__all__ = ["scratch_folder"]

LOCK = "in_use.lock"


@contextmanager
def scratch_folder(parent: str | Path, name: str) -> Iterator[Path]:
    """Make a temporary folder that is removed in any case.

    A killed process (``kill -9``, a machine that went down) cannot remove its folder. It cannot hold the lock in it
    either, so whoever makes a folder of the same name removes those that nobody holds.

    Parameters
    ----------
    parent : path
        Where the folder is made; made itself if it is missing.
    name : str
        Of the tomogram.

    Yields
    ------
    Path
        ``<parent>/.scratch_<name>_<random>``, empty but for the lock.

    Raises
    ------
    OSError
        If the disk is full; names the folder.
    """
    parent, prefix = Path(parent), f".scratch_{name}_"
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.iterdir():
        if old.name.startswith(prefix) and _is_abandoned(old):
            shutil.rmtree(old, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=prefix, dir=parent)
    try:
        with open(Path(folder) / LOCK, "w") as lock:
            with suppress(OSError):  # without locks in this file system nobody gets one, and nothing is removed
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with naming_the_full_disk(folder):
                yield Path(folder)
    except BaseException:
        # threads of zarr, which nobody can stop, may still end their writing, and make the folder anew for it
        for _ in range(10):
            shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.05)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    """Whether there is a lock in the folder that no living process holds."""
    try:
        with open(folder / LOCK, "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
