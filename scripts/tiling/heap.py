"""Memory that a network on a CPU keeps from one tile to the next, instead of handing it back to the system each time.

Each layer takes and frees up to hundreds of MB. glibc takes such blocks from the system and gives them back, and the
system clears every page again: a third of the time of a forward pass. With another C library nothing happens.
"""

from __future__ import annotations

import ctypes
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

__all__ = ["blocks_from_heap", "heap_kept"]

# of malloc.h; the values are those that glibc comes to by itself once large blocks were freed
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
USUAL = {MMAP_THRESHOLD: 2**25, TRIM_THRESHOLD: 2**26, MMAP_MAX: 2**16}
NEVER = 2**31 - 1
_held: Counter[int] = Counter()  # how many contexts hold an option


@contextmanager
def heap_kept() -> Iterator[None]:
    """Keep what the heap holds until the end, then hand back all that is free."""
    mallopt, trim = _glibc()
    mallopt(MMAP_THRESHOLD, USUAL[MMAP_THRESHOLD])
    try:
        with _option(TRIM_THRESHOLD, NEVER):
            yield
    finally:
        if not _held[TRIM_THRESHOLD]:
            trim(0)


@contextmanager
def blocks_from_heap() -> Iterator[None]:
    """Take large blocks from the heap, too, which may keep them, instead of one by one from the system."""
    with _option(MMAP_MAX, 0):
        yield


@contextmanager
def _option(name: int, value: int) -> Iterator[None]:
    """Hold an option of malloc; contexts may lie within each other."""
    mallopt, _ = _glibc()
    _held[name] += 1
    mallopt(name, value)
    try:
        yield
    finally:
        _held[name] -= 1
        if not _held[name]:
            mallopt(name, USUAL[name])


@cache
def _glibc() -> tuple[Callable, Callable]:
    """mallopt and malloc_trim; functions that do nothing where there are none."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):
        return (lambda name, value: 0), (lambda kept: 0)
    return library.mallopt, library.malloc_trim  # type: ignore[union-attr]
