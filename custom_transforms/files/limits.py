"""What memory there is, and volumes that declare more: refused before it is taken."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

import numpy as np

__all__ = ["DECLARING", "PROCESS_LIMIT", "Declared", "available_memory", "check_memory"]

GIB = 2**30
WORKING = 4  # bytes a voxel beside the file's own: labels as int32, or the image as float32
ENDLESS = 2**60  # cgroup v1 says "no limit" as a number near 2**63
DECLARING = ContextVar("DECLARING", default=False)  # whether readers only say what they would read
# bytes that this process may have in all, where whoever started it ends it beyond, as Dask does with its workers
PROCESS_LIMIT: ContextVar[int | None] = ContextVar("PROCESS_LIMIT", default=None)


class Declared(Exception):
    """Ends a reader that was about to take memory for a whole volume, while `DECLARING`."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        super().__init__(shape, dtype)
        self.shape, self.dtype = shape, np.dtype(dtype)


def available_memory(root: str | Path = "/") -> int:
    """Bytes that may be used now: what is free, within the limits of the batch job, container, session and process.

    A limit may stand at any level above the process: a step of a SLURM job (``--mem``) has one in a control group of
    its own, deep below /sys/fs/cgroup. Version 1 and 2 of control groups are read. Pages that only cache files count
    as free, as the kernel gives them up first.

    Parameters
    ----------
    root : path
        Where /proc and /sys lie, for tests.

    Examples
    --------
    >>> available_memory() > 0
    True
    """
    root = Path(root)
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    meminfo = root / "proc" / "meminfo"
    if meminfo.is_file():
        values = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(values.get("MemAvailable", values["MemTotal"]).split()[0]) * 1024
    if (limit := PROCESS_LIMIT.get()) is not None:
        free = min(free, limit)  # plans count what the process has already
    return max(min([free, *_left_by_limits(root)]), 0)


def check_memory(path: str | Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Refuse a volume that a file declares and memory cannot hold; every reader calls it before it takes memory.

    Raises
    ------
    ValueError
        Says what it takes, and what there is.
    Declared
        While only the size is asked for.
    """
    if DECLARING.get():
        raise Declared(shape, dtype)
    needed = int(np.prod(shape, dtype=object)) * (np.dtype(dtype).itemsize + WORKING)
    if needed > (free := available_memory()):
        raise ValueError(
            f"{path}: it declares {' x '.join(map(str, shape))} voxels of {np.dtype(dtype).name}. "
            f"Reading and using it takes {needed / GIB:,.1f} GiB, and {free / GIB:,.1f} GiB of memory are free. "
            "If that is right, convert it to MRC, not compressed, which is read by parts; if not, it is damaged: copy "
            "it again."
        )


def _left_by_limits(root: Path) -> Iterator[int]:
    """Bytes that each control group above this process leaves; those without a limit are not named."""
    groups = root / "proc" / "self" / "cgroup"
    for line in groups.read_text().splitlines() if groups.is_file() else ():
        _, kinds, path = line.split(":", 2)
        top = root / "sys" / "fs" / "cgroup"
        if kinds == "":  # version 2
            names, used_name, cached = ["memory.max", "memory.high"], "memory.current", "inactive_file"
        elif "memory" in kinds.split(","):
            names, used_name, cached = ["memory.limit_in_bytes"], "memory.usage_in_bytes", "total_inactive_file"
            top = top / "memory"
        else:
            continue
        # inside a container the path may be that of the host, and only the top is there
        for group in dict.fromkeys([top, *(top / part for part in _levels(path))]):
            limits = [_number(group / name) for name in names]
            used = _number(group / used_name)
            if used is not None:
                used -= _entry(group / "memory.stat", cached)
                yield from (limit - used for limit in limits if limit is not None and limit < ENDLESS)


def _levels(path: str) -> list[str]:
    """The groups on the way down: /a/b -> a, a/b.

    Examples
    --------
    >>> _levels("/slurm/job_1")
    ['slurm', 'slurm/job_1']
    """
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max" is no limit


def _entry(path: Path, name: str) -> int:
    """The value of a line ``name value`` in a file of such; 0 if there is none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), 0)
