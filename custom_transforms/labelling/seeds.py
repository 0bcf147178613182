"""Seeds: the peaks of the center map, one per particle, thinned to a minimum distance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from custom_transforms.labelling.plateaus import PeakRuns, find_peak_runs, one_peak_per_plateau
from custom_transforms.units import as_voxel_size_zyx
from custom_transforms.volumes.parallel import as_float_volume, squared_axis_weights

__all__ = ["find_seeds", "grid_of_points", "settle_peaks", "thin_peaks"]


def check_center_threshold(threshold: float) -> None:
    """Raise ValueError unless a peak of this height stands above nothing at all."""
    if not threshold > 0:
        raise ValueError(f"center_threshold: expected a number above 0, got {threshold!r}. Try 0.3.")


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
    check_center_threshold(threshold)
    runs = find_peak_runs(values, np.float32(threshold))
    return settle_peaks(runs, values.shape, min_distance, voxel_size_zyx)


def settle_peaks(
    runs: PeakRuns, shape: Sequence[int], min_distance: float, voxel_size_zyx: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Turn the peaks of a whole volume, plateaus too, into seeds: the second half of `find_seeds`.

    Parameters
    ----------
    runs : PeakRuns
        In the order of the voxels.
    shape : sequence of 3 ints
    min_distance, voxel_size_zyx
        As in `find_seeds`.

    Returns
    -------
    peaks_zyx, heights
        As `find_seeds` gives them.
    """
    weights, unit = squared_axis_weights(as_voxel_size_zyx(voxel_size_zyx))
    flat, heights = one_peak_per_plateau(runs, shape, weights)
    peaks = np.stack(np.unravel_index(flat, tuple(shape)), axis=1).astype(np.int64)
    taken = thin_peaks(peaks, np.lexsort((flat, -heights)), min_distance / unit, weights)
    return peaks[taken], heights[taken].astype(np.float64)


def thin_peaks(peaks: np.ndarray, order: np.ndarray, distance: float | np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Take peaks in order, unless they are nearer to a taken one than both of them ask for.

    Parameters
    ----------
    peaks : ndarray, shape (n, 3), int64
    order : ndarray, shape (n,), int
    distance : float or ndarray, shape (n,)
        Of all peaks or of each, in units of the smallest voxel side; of two peaks the smaller one holds.
    weights : ndarray, shape (3,)
        Squared voxel sides in that unit.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    longest = np.max(distance, initial=0.0)
    if longest <= 0 or len(peaks) < 2:
        return np.ones(len(peaks), dtype=bool)
    edges = np.maximum(np.ceil(longest / np.sqrt(weights)), 1).astype(np.int64)
    limits = np.full(len(peaks), distance**2, dtype=np.float64)
    return _thin_on_grid(peaks, order, edges, peaks.max(axis=0) // edges + 3, limits, weights)


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
def _thin_on_grid(peaks, order, edges, shape, limits, weights):
    """Take peaks in order unless a taken one is nearer than the root of both limits; cells hold the taken ones."""
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
                free = dz * dz * weights[0] + dy * dy * weights[1] + dx * dx * weights[2] >= min(
                    limits[i], limits[other]
                )
                other = following[other]
        if free:
            taken[i] = True
            following[i] = head[cz, cy, cx]
            head[cz, cy, cx] = i
    return taken
