"""Which true and predicted labels share how many voxels: one pass over both volumes, a few kilobytes per particle."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np

__all__ = ["LabelStatistics", "OverlapTable", "overlap_table", "paint"]

_EMPTY = np.int64(np.iinfo(np.int64).min)  # no pair of labels has this key
_SLAB = 8  # slices turned into int32 at a time, so that no copy of a volume is ever made


@dataclass(frozen=True)
class LabelStatistics:
    """One row per particle of one volume, in ascending order of id.

    ``ids`` (n,), ``voxels`` (n,) all of the particle's voxels, ``ignored`` (n,) those where the truth says "ignore",
    ``centers_zyx_vox`` (n, 3) plain centroid, ``touches_border`` (n,) whether a voxel lies on a face of the volume.
    """

    ids: np.ndarray
    voxels: np.ndarray
    ignored: np.ndarray
    centers_zyx_vox: np.ndarray
    touches_border: np.ndarray


@dataclass(frozen=True)
class OverlapTable:
    """Pairs of labels that share voxels, background (0) included, ignored voxels left out.

    ``true``, ``predicted``, ``voxels`` are (k,) int64; ``position`` (k, 3) is the centroid of each overlap, used to
    break ties by place and not by label. ``true_particles`` and ``predicted_particles`` describe the particles.
    """

    true: np.ndarray
    predicted: np.ndarray
    voxels: np.ndarray
    position: np.ndarray
    true_particles: LabelStatistics
    predicted_particles: LabelStatistics


def overlap_table(true: np.ndarray, predicted: np.ndarray, threads: int | None = None) -> OverlapTable:
    """Count the voxels of every pair of labels.

    Parameters
    ----------
    true : ndarray, shape (Z, Y, X), integers or whole-numbered floats
        0 background, 1..n particles (gaps allowed, below 2^31), negative = ignore these voxels.
    predicted : ndarray, shape (Z, Y, X), likewise
        Anything below 1 is background.
    threads : int, optional
        All cores by default. The result does not depend on it.

    Returns
    -------
    OverlapTable

    Examples
    --------
    >>> table = overlap_table(np.array([[[1, 1, 0, 2]]]), np.array([[[5, 0, 0, 5]]]))
    >>> [(int(t), int(p), int(n)) for t, p, n in zip(table.true, table.predicted, table.voxels)]
    [(0, 0, 1), (1, 0, 1), (1, 5, 1), (2, 5, 1)]
    """
    true, predicted = np.asarray(true), np.asarray(predicted)
    if true.ndim != 3 or true.shape != predicted.shape:
        raise ValueError(
            f"evaluate: expected predicted and true labels over the same voxels (Z, Y, X), got {predicted.shape} and "
            f"{true.shape}; compare particle lists instead, or bring both to one binning"
        )
    threads = threads or _cores()
    bounds = [len(true) * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(lambda i: _scan_range(true, predicted, bounds[i], bounds[i + 1]), range(threads)))
    keys, where = np.unique(np.concatenate([keys for keys, _ in parts]), return_inverse=True)
    sums = np.zeros((len(keys), 5), np.int64)
    np.add.at(sums, where, np.concatenate([sums for _, sums in parts]))
    return _tabulate(keys >> 32, keys & 0xFFFFFFFF, sums, true.size)


def _tabulate(t: np.ndarray, p: np.ndarray, sums: np.ndarray, size: int) -> OverlapTable:
    counted = t >= 0
    position = sums[:, 1:4] / sums[:, :1]
    neither = size - int(sums[:, 0].sum())  # the scan leaves out voxels that are background on both sides
    first = np.zeros(1 if neither else 0, np.int64)
    return OverlapTable(
        np.concatenate([first, t[counted]]),
        np.concatenate([first, p[counted]]),
        np.concatenate([first + neither, sums[counted, 0]]),
        np.concatenate([np.zeros((len(first), 3)), position[counted]]),
        _statistics(t, sums, ignored=np.zeros(len(t), bool)),
        _statistics(p, sums, ignored=t < 0),
    )


def _statistics(label: np.ndarray, sums: np.ndarray, ignored: np.ndarray) -> LabelStatistics:
    inside = label > 0
    ids, where = np.unique(label[inside], return_inverse=True)
    total = np.zeros((len(ids), 6), np.int64)
    np.add.at(total, where, np.column_stack([sums[inside], sums[inside, 0] * ignored[inside]]))
    return LabelStatistics(ids, total[:, 0], total[:, 5], total[:, 1:4] / total[:, :1], total[:, 4] > 0)


def _slabs(
    true: np.ndarray, predicted: np.ndarray, start: int, stop: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    for z in range(start, stop, _SLAB):
        part = slice(z, min(z + _SLAB, stop))
        yield z, np.ascontiguousarray(true[part], np.int32), np.ascontiguousarray(predicted[part], np.int32)


def _scan_range(true: np.ndarray, predicted: np.ndarray, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    keys, sums, used = np.full(1024, _EMPTY), np.zeros((1024, 5), np.int64), 0
    for z, true_slab, predicted_slab in _slabs(true, predicted, start, stop):
        keys, sums, used = _scan(true_slab, predicted_slab, z, len(true), keys, sums, used)
    return keys[keys != _EMPTY], sums[keys != _EMPTY]


@numba.njit(cache=True, nogil=True)
def _slot(keys, key):
    """Where the key is, or where it goes: open addressing in a table whose length is a power of two."""
    mask = np.uint64(len(keys) - 1)
    i = ((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask
    while keys[i] != key and keys[i] != _EMPTY:
        i = (i + np.uint64(1)) & mask
    return i


@numba.njit(cache=True, nogil=True)
def _grow(keys, sums):
    bigger, moved = np.full(2 * len(keys), _EMPTY), np.zeros((2 * len(keys), 5), np.int64)
    for old in range(len(keys)):
        if keys[old] != _EMPTY:
            i = _slot(bigger, keys[old])
            bigger[i] = keys[old]
            moved[i] = sums[old]
    return bigger, moved


@numba.njit(cache=True, nogil=True)
def _scan(true, predicted, z_first, n_slices, keys, sums, used):
    """Add a slab, run by run along x: voxels, their z, y, x, and how many runs touch a face."""
    n_z, n_y, n_x = true.shape
    for z in range(n_z):
        for y in range(n_y):
            face = z + z_first == 0 or z + z_first == n_slices - 1 or y == 0 or y == n_y - 1
            x = 0
            while x < n_x:
                t, p, start = true[z, y, x], predicted[z, y, x], x
                while x < n_x and true[z, y, x] == t and predicted[z, y, x] == p:
                    x += 1
                t, p = max(t, -1), max(p, 0)
                if t == 0 and p == 0:
                    continue
                key = (np.int64(t) << 32) | np.int64(p)
                i = _slot(keys, key)
                if keys[i] == _EMPTY:
                    if 2 * (used + 1) > len(keys):
                        keys, sums = _grow(keys, sums)
                        i = _slot(keys, key)
                    keys[i] = key
                    used += 1
                n = x - start
                sums[i, 0] += n
                sums[i, 1] += n * (z + z_first)
                sums[i, 2] += n * y
                sums[i, 3] += n * (start + x - 1) // 2
                sums[i, 4] += face or start == 0 or x == n_x
    return keys, sums, used


def paint(
    true: np.ndarray, predicted: np.ndarray, true_colors: dict[int, int], predicted_colors: dict[int, int]
) -> np.ndarray:
    """Colour every voxel by the verdict on its particle: the true one where there is one, else the predicted one.

    Parameters
    ----------
    true, predicted : ndarray, shape (Z, Y, X)
        Label volumes; ids that have no colour, background and ignored voxels come out 0.
    true_colors, predicted_colors : dict
        Id -> 0..127.

    Returns
    -------
    ndarray, shape (Z, Y, X), int8
        A new volume: no id is ever overwritten by a colour.
    """
    painted = np.zeros(true.shape, np.int8)
    tables = _color_table(true_colors), _color_table(predicted_colors)

    def work(z: int) -> None:
        for _, t, p in _slabs(true, predicted, z, min(z + _SLAB, len(true))):
            _paint(t, p, *tables[0], *tables[1], painted[z : z + _SLAB])

    with ThreadPoolExecutor(_cores()) as pool:
        list(pool.map(work, range(0, len(true), _SLAB)))
    return painted


def _cores() -> int:
    """Processors this process may use; macOS only tells how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _color_table(colors: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A hash table, because ids may be few and large."""
    keys = np.full(1 << max(4, (2 * len(colors)).bit_length()), _EMPTY)
    values = np.zeros(len(keys), np.int8)
    for key, color in colors.items():
        i = _slot(keys, np.int64(key))
        keys[i], values[i] = key, color
    return keys, values


@numba.njit(cache=True, nogil=True)
def _paint(true, predicted, true_keys, true_values, predicted_keys, predicted_values, painted):
    n_z, n_y, n_x = true.shape
    for z in range(n_z):
        for y in range(n_y):
            last_t, last_p, color = np.int32(0), np.int32(0), np.int8(0)
            for x in range(n_x):
                t, p = true[z, y, x], predicted[z, y, x]
                if t != last_t or p != last_p:
                    last_t, last_p, color = t, p, np.int8(0)
                    if t > 0:
                        color = true_values[_slot(true_keys, np.int64(t))]
                    elif t == 0 and p > 0:
                        color = predicted_values[_slot(predicted_keys, np.int64(p))]
                painted[z, y, x] = color
