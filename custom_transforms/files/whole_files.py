"""A file that is there is whole: write beside the target, then rename. And folders that can be written to."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["atomic_path", "check_folder", "check_name", "naming_the_full_disk", "sweep", "temporary_tag"]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# what is not finished yet: its tag says by which machine and process; those of version 0.1 have shorter ones
UNFINISHED = re.compile(r"\.(?:prepare_([0-9a-f]{8}|[0-9a-f]{16})$|([0-9a-f]{12}|[0-9a-f]{16})\.)")
ABANDONED = 24 * 3600.0  # seconds since the last write, where the process cannot be asked for
_swept: set[Path] = set()


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
    sweep(target.parent)
    temporary = _temporary(target)
    try:
        with naming_the_full_disk(target):
            yield temporary
            _sync(temporary)
        os.replace(temporary, target)
        _sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_tag() -> str:
    """16 hexadecimal digits for the name of something unfinished: 4 of this machine, 6 of this process, 6 by chance."""
    return f"{_machine()}{os.getpid():06x}{secrets.token_hex(3)}"


def sweep(folder: Path) -> None:
    """Remove what killed processes left unfinished in a folder; a second call in one process does nothing.

    That is what a process of this machine began that lives no more, and what was not written to for a day.
    """
    if (folder := folder.absolute()) in _swept:
        return
    _swept.add(folder)
    with suppress(OSError):
        for path in folder.iterdir():
            tag = UNFINISHED.match(path.name)
            if tag and _is_abandoned(path, tag[1] or tag[2]):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _is_abandoned(path: Path, tag: str) -> bool:
    if len(tag) == 16 and tag.startswith(_machine()):
        try:
            os.kill(int(tag[4:10], 16), 0)  # asks only whether it lives
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False
    with suppress(OSError):
        return time.time() - path.lstat().st_mtime > ABANDONED
    return False


def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:4]


def _sync(path: Path) -> None:
    """Bring a file to the disk before it takes its name, and the name after: a power cut leaves the old or the new."""
    try:
        number = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that may be written to and not listed
        return
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without it
            raise
    finally:
        os.close(number)


def _temporary(target: Path) -> Path:
    return target.with_name(f".{temporary_tag()}.{target.name}")


def check_name(path: str | os.PathLike, advice: str) -> None:
    """Refuse a file whose name, or the longer one it has while it is written, is longer than the file system takes.

    Its folder must be there.

    Raises
    ------
    ValueError
        Names the file, and gives the ``advice``.
    """
    try:
        _temporary(Path(path)).lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise ValueError(
            f"{path}: expected a shorter name, got {len(os.fsencode(Path(path).name))} bytes. {advice}"
        ) from error


def check_folder(folder: str | os.PathLike, option: str) -> None:
    """Make a folder, and refuse one that cannot be written to: to be asked before work that would be lost.

    Parameters
    ----------
    folder : path
        Missing parents are made, too.
    option : str
        What the user gives the folder with, for the message.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=os.fspath(folder)) as probe:
            probe.write(b"probe")
    except OSError as error:
        is_file = isinstance(error, (FileExistsError, NotADirectoryError))
        found = "a file is in its place" if is_file else f"writing fails: {error.strerror}"
        raise OSError(f"{folder}: expected a folder to write to, but {found}. Choose another {option}.") from error
