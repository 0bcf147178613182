"""Peaks of a map, and plateaus of equal voxels that are peaks together, kept as runs along X.

A map that is clipped at 1 can be a plateau nearly everywhere. As runs (stretches of equal voxels) it needs a few bytes
per row of the volume, not per voxel, so a saturated map costs time but not memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from custom_transforms.labelling.kernels import first_above, join_sets
from custom_transforms.volumes.parallel import run_parallel, slab_bounds

__all__ = ["PeakRuns", "find_peak_runs", "one_peak_per_plateau", "reaches_a_face"]


@dataclass(frozen=True)
class PeakRuns:
    """Stretches along X of equal voxels none of which has a higher neighbour (26).

    Attributes
    ----------
    start : ndarray, shape (n,), int64
        Flat index in the whole volume of the first voxel.
    length : ndarray, shape (n,), int32
    height : ndarray, shape (n,), float32
    ties : ndarray, shape (n,), int32
        Neighbours of equal height, summed over the voxels; 0 for a lone peak.
    """

    start: np.ndarray
    length: np.ndarray
    height: np.ndarray
    ties: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, chosen: np.ndarray) -> PeakRuns:
        return PeakRuns(self.start[chosen], self.length[chosen], self.height[chosen], self.ties[chosen])

    @classmethod
    def lone(cls, flat: np.ndarray, height: np.ndarray) -> PeakRuns:
        """Make runs of peaks of one voxel each."""
        return cls(flat, np.ones(len(flat), np.int32), height, np.zeros(len(flat), np.int32))

    @classmethod
    def join(cls, parts: Iterable[PeakRuns]) -> PeakRuns:
        """Put lists together, in the order of their voxels; at least one list."""
        start, length, height, ties = (
            np.concatenate(one)
            for one in zip(*((part.start, part.length, part.height, part.ties) for part in parts), strict=True)
        )
        if (start[1:] > start[:-1]).all():
            return cls(start, length, height, ties)
        order = np.argsort(start)
        return cls(start[order], length[order], height[order], ties[order])


def find_peak_runs(
    values: np.ndarray,
    limit: np.float32,
    inner: Sequence[slice] | None = None,
    corner: Sequence[int] | np.ndarray = (0, 0, 0),
    shape: Sequence[int] | None = None,
) -> PeakRuns:
    """Find the voxels without a higher neighbour, in the order of the voxels.

    Parameters
    ----------
    values : ndarray, shape (Z, Y, X), float32, C order
        The map, or a part of it.
    limit : float32
        Lowest height of a peak; NaN is never one.
    inner : sequence of 3 slices, optional
        Where in ``values`` to look; neighbours around it count. All by default.
    corner, shape : sequences of 3 ints, optional
        First voxel of ``values`` in the whole volume, and the shape of that, for the indices.
    """
    z, y, x = inner if inner is not None else (slice(0, side) for side in values.shape)
    whole = np.asarray(values.shape if shape is None else shape, dtype=np.int64)
    offset = (int(corner[0]) * int(whole[1]) + int(corner[1])) * int(whole[2]) + int(corner[2])
    found = run_parallel(
        lambda a, b: _peak_runs(
            values, limit, z.start + a, z.start + b, y.start, y.stop, x.start, x.stop, offset, whole
        ),
        slab_bounds(z.stop - z.start),
    )  # fmt: skip
    return PeakRuns.join(PeakRuns(*one) for one in found)


def one_peak_per_plateau(runs: PeakRuns, shape: Sequence[int], weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give every plateau its one peak: the voxel nearest its centroid, of equally near ones the first.

    A plateau with a voxel that has a higher neighbour is a shoulder, and no peak. That voxel is not among the runs, so
    runs with more equal neighbours than the list holds give the shoulder away.

    Parameters
    ----------
    runs : PeakRuns
        Whole plateaus, in the order of the voxels.
    shape : sequence of 3 ints
        Of the whole volume.
    weights : ndarray, shape (3,)
        See `squared_axis_weights`.

    Returns
    -------
    flat : ndarray of int64, sorted
    heights : ndarray of float32
    """
    sides = np.asarray(shape, dtype=np.int64)
    parent, found = _join_runs(runs.start, runs.length, runs.height, runs.ties, sides)
    flat = _nearest_to_centroid(runs.start, runs.length, runs.ties, parent, found, sides, np.asarray(weights))
    heights = runs.height[np.searchsorted(runs.start, flat, side="right") - 1] if len(flat) else runs.height[:0]
    order = np.argsort(flat)
    return flat[order], heights[order]


def reaches_a_face(runs: PeakRuns, shape: Sequence[int], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Tell which runs are part of a plateau that touches a face, inside the volume, of the box ``low`` to ``high``.

    Parameters
    ----------
    runs : PeakRuns
        All of the box, in the order of the voxels.
    """
    sides = np.asarray(shape, dtype=np.int64)
    parent, _ = _join_runs(runs.start, runs.length, runs.height, runs.ties, sides)
    return _touches(runs.start, runs.length, runs.ties, parent, sides, low, high)


@njit(nogil=True, cache=True)
def _peak_runs(values, limit, z_first, z_last, y_first, y_last, x_first, x_last, offset, whole):
    start = np.empty(1024, np.int64)
    length = np.empty(1024, np.int32)
    height = np.empty(1024, np.float32)
    ties = np.empty(1024, np.int32)
    count = 0
    for z in range(z_first, z_last):
        for y in range(y_first, y_last):
            behind = x_first - 2  # the last peak of this row
            for x in range(x_first, x_last):
                value = values[z, y, x]
                if not value >= limit:
                    continue
                equal = _ties_if_peak(values, z, y, x)
                if equal < 0:
                    continue
                if behind == x - 1:  # two peaks side by side are equal
                    length[count - 1] += 1
                    ties[count - 1] += equal
                else:
                    if count == start.size:
                        start = np.concatenate((start, np.empty_like(start)))
                        length = np.concatenate((length, np.empty_like(length)))
                        height = np.concatenate((height, np.empty_like(height)))
                        ties = np.concatenate((ties, np.empty_like(ties)))
                    start[count] = offset + (z * whole[1] + y) * whole[2] + x
                    length[count] = 1
                    height[count] = value
                    ties[count] = equal
                    count += 1
                behind = x
    return start[:count].copy(), length[:count].copy(), height[:count].copy(), ties[:count].copy()


@njit(nogil=True, cache=True)
def _ties_if_peak(values, z, y, x):
    """-1 if a neighbour is higher, else the number of equal neighbours."""
    nz, ny, nx = values.shape
    value = values[z, y, x]
    ties = 0
    for k in range(max(z - 1, 0), min(z + 2, nz)):
        for j in range(max(y - 1, 0), min(y + 2, ny)):
            for i in range(max(x - 1, 0), min(x + 2, nx)):
                other = values[k, j, i]
                if other > value:
                    return -1
                if other == value:
                    ties += 1
    return ties - 1


@njit(nogil=True, cache=True)
def _join_runs(start, length, height, ties, shape):
    """Parents of the runs (roots first, flattened), and how many equal neighbours of each are in the list."""
    ny, nx = shape[1], shape[2]
    parent = np.arange(start.size)
    found = np.zeros(start.size, np.int64)
    for a in range(start.size):
        found[a] += 2 * (length[a] - 1)
        if ties[a] == 0:
            continue
        z, y, x = start[a] // (ny * nx), start[a] // nx % ny, start[a] % nx
        if x > 0 and a > 0 and start[a - 1] + length[a - 1] == start[a] and height[a - 1] == height[a]:
            _pair(parent, found, a, a - 1, 1)  # a block ended here
        for row in range(4):  # the rows behind: those ahead find this one
            k, j = (z, y - 1) if row == 3 else (z - 1, y - 1 + row)
            if k < 0 or j < 0 or j >= ny:
                continue
            first = (k * ny + j) * nx
            low, high = first + max(x - 1, 0), first + min(x + length[a] + 1, nx)
            b = max(first_above(start, 0, a, low) - 1, 0)  # the last run that may reach the row's part
            while b < a and start[b] < high:
                if start[b] + length[b] > low and height[b] == height[a]:
                    _pair(parent, found, a, b, _touching(x, length[a], start[b] - first, length[b]))
                b += 1
    for a in range(start.size):
        parent[a] = parent[parent[a]]  # a parent comes before its children, so it is flat already
    return parent, found


@njit(nogil=True, cache=True)
def _touching(x, length, other, other_length):
    """Pairs of voxels, one of each run of two neighbouring rows, that are neighbours."""
    pairs = 0
    for shift in range(-1, 2):
        pairs += max(0, min(x + length, other + other_length + shift) - max(x, other + shift))
    return pairs


@njit(nogil=True, cache=True)
def _pair(parent, found, a, b, pairs):
    found[a] += pairs
    found[b] += pairs
    join_sets(parent, a, b)


@njit(nogil=True, cache=True)
def _nearest_to_centroid(start, length, ties, parent, found, shape, weights):
    ny, nx = shape[1], shape[2]
    number = np.empty(start.size, np.int64)  # of the plateau of a run
    plateaus = 0
    for a in range(start.size):
        if parent[a] == a:
            number[a] = plateaus
            plateaus += 1
        else:
            number[a] = number[parent[a]]
    sums = np.zeros((plateaus, 4), np.int64)
    shoulder = np.zeros(plateaus, np.bool_)
    for a in range(start.size):
        k, n = number[a], np.int64(length[a])
        shoulder[k] |= found[a] < ties[a]
        sums[k, 0] += n
        sums[k, 1] += n * (start[a] // (ny * nx))
        sums[k, 2] += n * (start[a] // nx % ny)
        sums[k, 3] += n * (start[a] % nx) + n * (n - 1) // 2
    best = np.full(plateaus, -1, np.int64)
    best_distance = np.zeros(plateaus)
    for a in range(start.size):
        k = number[a]
        if shoulder[k]:
            continue
        n, x = sums[k, 0], start[a] % nx
        nearest = min(max(-((n - 2 * sums[k, 3]) // (2 * n)), x), x + length[a] - 1)  # rounded, halves down
        # whole numbers up to here, so that nothing depends on where a block begins; their squares may not fit
        dz = float(n * (start[a] // (ny * nx)) - sums[k, 1])
        dy = float(n * (start[a] // nx % ny) - sums[k, 2])
        dx = float(n * nearest - sums[k, 3])
        distance = dz * dz * weights[0] + dy * dy * weights[1] + dx * dx * weights[2]
        if best[k] < 0 or distance < best_distance[k]:
            best[k] = start[a] + nearest - x
            best_distance[k] = distance
    return best[best >= 0]


@njit(nogil=True, cache=True)
def _touches(start, length, ties, parent, shape, low, high):
    ny, nx = shape[1], shape[2]
    touches = np.zeros(start.size, np.bool_)
    for a in range(start.size):
        if ties[a] == 0:
            continue
        at = (start[a] // (ny * nx), start[a] // nx % ny, start[a] % nx)
        for axis in range(3):
            end = at[axis] + (length[a] if axis == 2 else 1)
            if (at[axis] == low[axis] and low[axis] > 0) or (end == high[axis] and high[axis] < shape[axis]):
                touches[parent[a]] = True
    for a in range(start.size):
        touches[a] = touches[parent[a]]
    return touches
