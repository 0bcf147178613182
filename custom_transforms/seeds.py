"""Seeds: the peaks of the center map, one per particle, thinned to a minimum distance."""

from __future__ import annotations

import numpy as np
from numba import njit

from custom_transforms.parallel import as_float_volume, run_parallel, slab_bounds, squared_axis_weights
from custom_transforms.units import as_voxel_size_zyx

__all__ = ["find_seeds", "grid_of_points"]


def find_seeds(
    center_map: np.ndarray, threshold: float, min_distance: float, voxel_size_zyx: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find the local maxima of the center map that are high enough and far enough from higher ones.

    1. A peak is a voxel, or a plateau of equal voxels, with no higher voxel among its 26 neighbours.
       A plateau gives one peak: its voxel nearest the plateau's centroid (ties: smallest z, y, x).
       At the border of the volume only the neighbours inside count.
    2. Peaks are taken from the highest down (ties: smallest z, y, x); a peak nearer than
       ``min_distance`` to one already taken is left out.

    Peaks count inside and outside the mask: the center of a hollow particle lies outside.

    Parameters
    ----------
    center_map : ndarray, shape (Z, Y, X), float
        Center map, 0..1. NaN is never a peak.
    threshold : float
        Lowest height of a seed (inclusive, compared in float32); above 0.
    min_distance : float
        Å; two seeds are at least this far apart. 0 keeps every peak.
    voxel_size_zyx : ndarray, shape (3,)
        Å per voxel along Z, Y, X.

    Returns
    -------
    peaks_zyx : ndarray, shape (n, 3), int64
        Indices of the seeds, sorted by z, y, x. ``n`` is 0 for an empty map.
    heights : ndarray, shape (n,), float64
        The center map there.

    Raises
    ------
    ValueError
        If the map does not have three axes, or the threshold is not above 0.

    Examples
    --------
    >>> center_map = np.zeros((5, 6, 7))
    >>> center_map[2, 3, 4] = 0.8
    >>> find_seeds(center_map, 0.3, 20.0, np.array([10.0, 10.0, 10.0]))
    (array([[2, 3, 4]]), array([0.8...]))
    """
    values = as_float_volume(center_map, "center_map")
    if not threshold > 0:
        raise ValueError(f"center_threshold: expected a number above 0, got {threshold!r}. Try 0.3.")
    limit = np.float32(threshold)
    found = run_parallel(lambda a, b: _local_maxima(values, limit, a, b), slab_bounds(len(values)))
    flat, heights, equal = (np.concatenate(parts) for parts in zip(*found, strict=True))
    weights, unit = squared_axis_weights(as_voxel_size_zyx(voxel_size_zyx))
    kept = _one_peak_per_plateau(flat, heights, equal, values.shape, weights)
    flat, heights = flat[kept], heights[kept]
    peaks = np.stack(np.unravel_index(flat, values.shape), axis=1).astype(np.int64)
    taken = _thin(peaks, np.lexsort((flat, -heights)), min_distance / unit, weights)
    return peaks[taken], heights[taken].astype(np.float64)


def _thin(peaks: np.ndarray, order: np.ndarray, distance: float, weights: np.ndarray) -> np.ndarray:
    """Greedy thinning; ``distance`` in units of the smallest voxel side. Returns a mask over the peaks."""
    if distance <= 0 or len(peaks) < 2:
        return np.ones(len(peaks), dtype=bool)
    edges = np.maximum(np.ceil(distance / np.sqrt(weights)), 1).astype(np.int64)
    return _thin_on_grid(peaks, order, edges, peaks.max(axis=0) // edges + 3, distance**2, weights)


@njit(nogil=True, cache=True)
def _local_maxima(values, limit, first, last):
    """Voxels of slices first..last-1 with no higher neighbour; how many of the neighbours are equal."""
    nz, ny, nx = values.shape
    flat = np.empty(1024, np.int64)
    heights = np.empty(1024, np.float32)
    equal = np.empty(1024, np.int8)
    count = 0
    for z in range(first, last):
        for y in range(ny):
            for x in range(nx):
                value = values[z, y, x]
                if not value >= limit:
                    continue
                ties = _ties_if_peak(values, z, y, x)
                if ties < 0:
                    continue
                if count == flat.size:
                    flat = np.concatenate((flat, np.empty_like(flat)))
                    heights = np.concatenate((heights, np.empty_like(heights)))
                    equal = np.concatenate((equal, np.empty_like(equal)))
                flat[count] = (z * ny + y) * nx + x
                heights[count] = value
                equal[count] = ties
                count += 1
    return flat[:count], heights[:count], equal[:count]


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
def _one_peak_per_plateau(flat, heights, equal, shape, weights):
    """Keep lone peaks, and one voxel of every plateau all of whose voxels are peaks.

    A plateau with a voxel that has a higher neighbour is a shoulder: that voxel is not in the list, so a
    member that counts more equal neighbours than the list holds gives the shoulder away.
    """
    ny, nx = shape[1], shape[2]
    parent = np.arange(flat.size)
    shoulder = np.zeros(flat.size, np.bool_)
    for i in range(flat.size):
        if equal[i] == 0:
            continue
        z, y, x = flat[i] // (ny * nx), flat[i] // nx % ny, flat[i] % nx
        found = 0
        for neighbor in range(27):
            k, j, h = z - 1 + neighbor // 9, y - 1 + neighbor // 3 % 3, x - 1 + neighbor % 3
            if neighbor == 13 or min(k, j, h) < 0 or k >= shape[0] or j >= ny or h >= nx:
                continue
            other = _find(flat, (k * ny + j) * nx + h)
            if other >= 0 and heights[other] == heights[i]:
                found += 1
                _unite(parent, i, other)
        shoulder[i] = found < equal[i]
    return _nearest_to_centroid(flat, parent, shoulder, ny, nx, weights)


@njit(nogil=True, cache=True)
def _find(flat, target):
    """Position of ``target`` in the sorted indices, -1 if it is not there."""
    first, last = 0, flat.size
    while first < last:
        middle = (first + last) // 2
        if flat[middle] < target:
            first = middle + 1
        else:
            last = middle
    return first if first < flat.size and flat[first] == target else -1


@njit(nogil=True, cache=True)
def _unite(parent, a, b):
    while parent[a] != a:
        parent[a] = parent[parent[a]]
        a = parent[a]
    while parent[b] != b:
        parent[b] = parent[parent[b]]
        b = parent[b]
    parent[max(a, b)] = min(a, b)


@njit(nogil=True, cache=True)
def _nearest_to_centroid(flat, parent, shoulder, ny, nx, weights):
    sums = np.zeros((flat.size, 4), np.int64)
    for i in range(flat.size):
        root = parent[parent[i]]
        while parent[root] != root:
            root = parent[root]
        parent[i] = root
        shoulder[root] |= shoulder[i]
        sums[root, 0] += flat[i] // (ny * nx)
        sums[root, 1] += flat[i] // nx % ny
        sums[root, 2] += flat[i] % nx
        sums[root, 3] += 1
    best = np.full(flat.size, -1, np.int64)
    best_distance = np.zeros(flat.size)
    for i in range(flat.size):
        root, n = parent[i], sums[parent[i], 3]
        dz = n * (flat[i] // (ny * nx)) - sums[root, 0]
        dy = n * (flat[i] // nx % ny) - sums[root, 1]
        dx = n * (flat[i] % nx) - sums[root, 2]
        distance = dz * dz * weights[0] + dy * dy * weights[1] + dx * dx * weights[2]
        if best[root] < 0 or distance < best_distance[root]:
            best[root] = i
            best_distance[root] = distance
    kept = np.zeros(flat.size, np.bool_)
    for root in range(flat.size):
        if best[root] >= 0 and not shoulder[root]:
            kept[best[root]] = True
    return kept


@njit(nogil=True, cache=True)
def grid_of_points(points, edges, shape):
    """Sort points into cells: linked lists ``head[cell] -> next[point]``, -1 ends a list.

    A border of one empty cell on every side spares the neighbour search its bounds checks.
    """
    head = np.full((shape[0], shape[1], shape[2]), -1, np.int64)
    following = np.full(points.shape[0], -1, np.int64)
    for i in range(points.shape[0]):
        cz, cy, cx = points[i, 0] // edges[0] + 1, points[i, 1] // edges[1] + 1, points[i, 2] // edges[2] + 1
        following[i] = head[cz, cy, cx]
        head[cz, cy, cx] = i
    return head, following


@njit(nogil=True, cache=True)
def _thin_on_grid(peaks, order, edges, shape, limit, weights):
    """Take peaks in order unless a taken one is nearer than sqrt(limit); cells hold the taken ones."""
    head = np.full((shape[0], shape[1], shape[2]), -1, np.int64)
    following = np.full(peaks.shape[0], -1, np.int64)
    taken = np.zeros(peaks.shape[0], np.bool_)
    for i in order:
        cz, cy, cx = peaks[i, 0] // edges[0] + 1, peaks[i, 1] // edges[1] + 1, peaks[i, 2] // edges[2] + 1
        free = True
        for cell in range(27):
            other = head[cz - 1 + cell // 9, cy - 1 + cell // 3 % 3, cx - 1 + cell % 3]
            while other >= 0 and free:
                dz, dy, dx = peaks[i, 0] - peaks[other, 0], peaks[i, 1] - peaks[other, 1], peaks[i, 2] - peaks[other, 2]
                free = dz * dz * weights[0] + dy * dy * weights[1] + dx * dx * weights[2] >= limit
                other = following[other]
        if free:
            taken[i] = True
            following[i] = head[cz, cy, cx]
            head[cz, cy, cx] = i
    return taken
