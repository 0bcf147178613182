"""What memory there is, and volumes that declare more: refused before it is taken."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

__all__ = ["available_memory", "check_memory"]

GIB = 2**30


def available_memory() -> int:
    """Bytes that may be used now: what the machine has free, within the limit of a container."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        values = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(values.get("MemAvailable", values["MemTotal"]).split()[0]) * 1024
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def check_memory(path: str | Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Refuse a volume that a file declares and memory cannot hold.

    Raises
    ------
    ValueError
        Says what it takes, and what there is.
    """
    needed = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    if needed > (free := available_memory()):
        raise ValueError(
            f"{path}: it declares {' x '.join(map(str, shape))} voxels of {np.dtype(dtype).name}, "
            f"{needed / GIB:,.1f} GiB, and {free / GIB:,.1f} GiB of memory are free. If that is right, convert it to "
            "MRC, not compressed, which is read by parts; if not, it is damaged: copy it again."
        )
