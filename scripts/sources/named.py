"""What a user names, whatever the verb: ``~``, patterns, the same twice, and what is not there."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from scripts.console import note

__all__ = ["absolute_path", "each_once", "listed", "named_paths"]

T = TypeVar("T")


def named_paths(named: str | Path, what: str) -> list[Path]:
    """The files and folders of one name.

    Parameters
    ----------
    named : path
        ``~`` is the home folder. A pattern (``*``, ``?``, ``[``) stands for all that fit, by name, also where the
        shell has not put them in its place; what is there under the whole name is no pattern.
    what : str
        What the user should name, for the message.

    Returns
    -------
    list of Path
        Files and folders that exist; at least one.

    Raises
    ------
    FileNotFoundError, ValueError
        If nothing is there, or the name is empty.
    """
    if not str(named).strip():
        raise ValueError(f"expected {what}, got an empty name.")
    path = Path(os.path.expanduser(named))
    found = [path] if path.exists() else [one for one in map(Path, sorted(glob.glob(str(path)))) if one.exists()]
    if not found:
        raise FileNotFoundError(f"{named}: expected {what}, found nothing there. Check the path.")
    return found


def each_once(
    found: Iterable[T], name_of: Callable[[T], str], path_of: Callable[[T], str | Path], what: str
) -> dict[str, T]:
    """Take what is named twice once, with a note.

    Parameters
    ----------
    found : iterable
    name_of, path_of : callable
        What outputs are called after, and the file.
    what : str
        Plural, for the message.

    Returns
    -------
    dict of str to item
        By name, in the order of the first.

    Raises
    ------
    ValueError
        If two different files have one name.
    """
    once: dict[str, T] = {}
    twice: list[str] = []
    for one in found:
        name = name_of(one)
        other = once.setdefault(name, one)
        if other is one:
            continue
        first, second = path_of(other), path_of(one)
        if not _is_same(first, second):
            raise ValueError(
                f"{first} and {second} would both be written as {name}: expected {what} of different names. Rename "
                "one, or give them to separate runs."
            )
        twice.append(str(second))
    if twice:
        note(f"named twice, taken once: {listed(twice)}")
    return once


def listed(names: Iterable[str], most: int = 10) -> str:
    """Up to ten names in a line, and how many more there are.

    Examples
    --------
    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def absolute_path(path: str | Path) -> str:
    """Make a path absolute and keep the names of its links: a tomogram is called as its path, not as the link's target.

    Links before a ``..`` alone are followed, since that is the folder above their target.

    Examples
    --------
    >>> absolute_path("/data/run/../TS_01.mrc")
    '/data/TS_01.mrc'
    """
    parts = Path(path).absolute().parts
    followed = max((number for number, part in enumerate(parts, 1) if part == ".."), default=0)
    return str(Path(*parts[:followed]).resolve().joinpath(*parts[followed:]))


def _is_same(first: str | Path, second: str | Path) -> bool:
    return str(first) == str(second) or os.path.samefile(first, second)
