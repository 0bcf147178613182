"""A file that is there is whole: write beside the target, then rename. And folders that can be written to."""

from __future__ import annotations

import errno
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_path", "check_folder", "naming_the_full_disk"]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def naming_the_full_disk(path: str | os.PathLike) -> Iterator[None]:
    """Say what could not be written, and what to do, where the system only says that there is no room."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(
            f"{path}: expected room to write it, got {error.strerror!r}. Make room, raise the limit (quota, ulimit), "
            "or choose a folder on another disk."
        ) from error


@contextmanager
def atomic_path(path: str | os.PathLike, overwrite: bool = True) -> Iterator[Path]:
    """Give a temporary path to write to; it takes the target's name when the block ends well.

    Parameters
    ----------
    path : path
        Where the finished file shall be. Missing parent folders are made.
    overwrite : bool
        False refuses a target that exists, before anything is written.

    Yields
    ------
    Path
        A name in the same folder with the same suffixes (``.mrc.gz`` stays ``.mrc.gz``), not yet existing.
        If the block raises, whatever lies there is removed and an older target stays as it was.

    Raises
    ------
    ValueError
        If the target exists and ``overwrite`` is False.
    OSError
        If the disk is full, or the file larger than may be; names the target.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_path(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> [p.name for p in folder.iterdir()]
    ['a.txt']
    """
    target = Path(path)
    if target.exists() and not overwrite:
        raise ValueError(f"{target}: exists already. Give another name, or --overwrite to replace it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex[:12]}.{target.name}")
    try:
        with naming_the_full_disk(target):
            yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def check_folder(folder: str | os.PathLike, option: str) -> None:
    """Make a folder, and refuse one that cannot be written to: to be asked before work that would be lost.

    Parameters
    ----------
    folder : path
        Missing parents are made, too.
    option : str
        What the user gives the folder with, for the message.

    Raises
    ------
    OSError
        Names the folder and the reason.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=os.fspath(folder)) as probe:
            probe.write(b"probe")
    except OSError as error:
        is_file = isinstance(error, (FileExistsError, NotADirectoryError))
        found = "a file is in its place" if is_file else f"writing fails: {error.strerror}"
        raise OSError(f"{folder}: expected a folder to write to, but {found}. Choose another {option}.") from error
