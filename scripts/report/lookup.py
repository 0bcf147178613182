"""Find a value in a run's record, whose layout grows with the versions that wrote it."""

from __future__ import annotations

from typing import Any

__all__ = ["find_key"]


def find_key(info: object, *names: str) -> Any:
    """Return the first value stored under one of ``names``, the shallowest first; None if there is none.

    Examples
    --------
    >>> find_key({"input": {"voxel_size": 10.0}}, "voxel_size_zyx", "voxel_size")
    10.0
    """
    level: list[object] = [info]
    while level:
        dicts = [d for d in level if isinstance(d, dict)]
        for name in names:
            for d in dicts:
                if d.get(name) is not None:
                    return d[name]
        level = [v for d in dicts for v in d.values()]
    return None
