"""A file that is there is whole: write beside the target, then rename."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_path"]


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
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
