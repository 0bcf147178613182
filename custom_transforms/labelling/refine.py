"""Sub-voxel particle centers from the center map around each seed."""

from __future__ import annotations

import numpy as np
from numba import njit

from custom_transforms.labelling.seeds import grid_of_points
from custom_transforms.units import as_voxel_size_zyx
from custom_transforms.volumes.parallel import as_float_volume, run_parallel, slab_bounds, squared_axis_weights

__all__ = ["refine_seeds"]

MAX_ROUNDS = 30  # the ball has settled after 5 to 10 rounds on real maps
SETTLED = 1e-3  # voxels; a smaller step ends the rounds


def refine_seeds(
    center_map: np.ndarray, peaks_zyx: np.ndarray, radius: float | np.ndarray, voxel_size_zyx: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Move every seed to the centroid of the center map around it.

    The centroid is taken over the voxels within ``radius`` whose value is above half the peak, each
    weighted by what it has above that half. The ball is then put around the centroid and the step
    repeated until it rests, so that a particle centered between voxels is not pulled to the voxel that
    happened to be the peak; for the same reason the ball's edge fades over one voxel. A voxel nearer to
    another seed counts for that one alone, a voxel as near to both counts for both, and no center moves
    farther than ``radius`` from its peak.

    Parameters
    ----------
    center_map : ndarray, shape (Z, Y, X), float
        Center map, 0..1.
    peaks_zyx : ndarray, shape (n, 3), int
        Seeds of `find_seeds`, sorted by z, y, x. ``n`` may be 0.
    radius : float or ndarray, shape (n,)
        Å, of all seeds or of each; half the particle's radius is a good value.
    voxel_size_zyx : ndarray, shape (3,)
        Å per voxel along Z, Y, X.

    Returns
    -------
    centers_zyx_vox : ndarray, shape (n, 3), float64
        Sub-voxel centers; 0.0 is the middle of the first voxel.
    heights : ndarray, shape (n,), float64
        The center map there, by trilinear interpolation.

    Examples
    --------
    >>> center_map = np.zeros((5, 6, 7))
    >>> center_map[2, 3, 3:5] = 0.8
    >>> centers, heights = refine_seeds(center_map, np.array([[2, 3, 3]]), 25.0, np.array([10.0, 10.0, 10.0]))
    >>> centers.round(2)
    array([[2. , 3. , 3.5]])
    """
    values = as_float_volume(center_map, "center_map")
    peaks = np.ascontiguousarray(peaks_zyx, dtype=np.int64).reshape(-1, 3)
    centers = peaks.astype(np.float64)
    heights = np.zeros(len(peaks))
    if not len(peaks):
        return centers, heights
    weights, unit = squared_axis_weights(as_voxel_size_zyx(voxel_size_zyx))
    reaches = np.full(len(peaks), radius / unit, dtype=np.float64)
    # a voxel that counts is within 2 radii of its peak, so a peak that could own it is within 4
    edges = np.maximum(np.ceil(4 * reaches.max() / np.sqrt(weights)), 1).astype(np.int64)
    head, following = grid_of_points(peaks, edges, peaks.max(axis=0) // edges + 3)
    jobs = [
        (values, peaks, head, following, edges, reaches, weights, a, b, centers, heights)
        for a, b in slab_bounds(len(peaks), 1024)
    ]
    run_parallel(_refine, jobs)
    return centers, heights


@njit(nogil=True, cache=True)
def _refine(values, peaks, head, following, edges, reaches, weights, first, last, centers, heights):
    rivals = np.empty((peaks.shape[0], 3), np.int64)
    for seed in range(first, last):
        reach = reaches[seed]
        count = _find_rivals(peaks, head, following, edges, weights, reach, seed, rivals)
        center = centers[seed]
        for _ in range(MAX_ROUNDS):
            z, y, x = _centroid(values, peaks, seed, rivals, count, center, reach, weights)
            dz, dy, dx = z - peaks[seed, 0], y - peaks[seed, 1], x - peaks[seed, 2]
            moved = np.sqrt(dz * dz * weights[0] + dy * dy * weights[1] + dx * dx * weights[2])
            if moved > reach:  # back onto the ball around the peak
                dz, dy, dx = dz * reach / moved, dy * reach / moved, dx * reach / moved
            z, y, x = peaks[seed, 0] + dz, peaks[seed, 1] + dy, peaks[seed, 2] + dx
            step = max(abs(z - center[0]), abs(y - center[1]), abs(x - center[2]))
            center[0], center[1], center[2] = z, y, x
            if step < SETTLED:
                break
        heights[seed] = _interpolate(values, center)


@njit(nogil=True, cache=True)
def _find_rivals(peaks, head, following, edges, weights, reach, seed, rivals):
    """Other peaks that may own voxels near this one."""
    pz, py, px = peaks[seed, 0], peaks[seed, 1], peaks[seed, 2]
    count = 0
    for cell in range(27):
        cz, cy, cx = pz // edges[0] + cell // 9, py // edges[1] + cell // 3 % 3, px // edges[2] + cell % 3
        other = head[cz, cy, cx]
        while other >= 0:
            dz, dy, dx = peaks[other, 0] - pz, peaks[other, 1] - py, peaks[other, 2] - px
            distance = dz * dz * weights[0] + dy * dy * weights[1] + dx * dx * weights[2]
            if other != seed and distance <= 16 * (reach + 1) * (reach + 1):
                for axis in range(3):
                    rivals[count, axis] = peaks[other, axis]
                count += 1
            other = following[other]
    return count


@njit(nogil=True, cache=True)
def _centroid(values, peaks, seed, rivals, count, center, reach, weights):
    """One round: centroid of what exceeds half the peak, in the ball around ``center``."""
    half = 0.5 * values[peaks[seed, 0], peaks[seed, 1], peaks[seed, 2]]
    low = np.empty(3, np.int64)
    high = np.empty(3, np.int64)
    for axis in range(3):
        extent = (reach + 0.5) / np.sqrt(weights[axis])
        low[axis] = max(int(np.ceil(center[axis] - extent)), 0)
        high[axis] = min(int(np.floor(center[axis] + extent)) + 1, values.shape[axis])
    total = sz = sy = sx = 0.0
    for z in range(low[0], high[0]):
        for y in range(low[1], high[1]):
            for x in range(low[2], high[2]):
                excess = values[z, y, x] - half
                if not excess > 0:
                    continue
                dz, dy, dx = z - center[0], y - center[1], x - center[2]
                distance = np.sqrt(dz * dz * weights[0] + dy * dy * weights[1] + dx * dx * weights[2])
                inside = min(reach + 0.5 - distance, 1.0)
                if inside <= 0 or not _owns(peaks, seed, rivals, count, z, y, x, weights):
                    continue
                weight = excess * inside
                total += weight
                sz += weight * dz
                sy += weight * dy
                sx += weight * dx
    if total == 0:  # only a peak of zero height, or a ball smaller than a voxel
        return center[0], center[1], center[2]
    return center[0] + sz / total, center[1] + sy / total, center[2] + sx / total


@njit(nogil=True, cache=True)
def _owns(peaks, seed, rivals, count, z, y, x, weights):
    """Whether no other peak is nearer to the voxel."""
    dz, dy, dx = z - peaks[seed, 0], y - peaks[seed, 1], x - peaks[seed, 2]
    own = dz * dz * weights[0] + dy * dy * weights[1] + dx * dx * weights[2]
    for k in range(count):
        dz, dy, dx = z - rivals[k, 0], y - rivals[k, 1], x - rivals[k, 2]
        if dz * dz * weights[0] + dy * dy * weights[1] + dx * dx * weights[2] < own:
            return False
    return True


@njit(nogil=True, cache=True)
def _interpolate(values, center):
    nz, ny, nx = values.shape
    z, y, x = min(int(center[0]), nz - 1), min(int(center[1]), ny - 1), min(int(center[2]), nx - 1)
    fz, fy, fx = center[0] - z, center[1] - y, center[2] - x
    height = 0.0
    for corner in range(8):
        k, j, i = corner // 4, corner // 2 % 2, corner % 2
        weight = (fz if k else 1 - fz) * (fy if j else 1 - fy) * (fx if i else 1 - fx)
        if weight > 0:
            height += weight * values[min(z + k, nz - 1), min(y + j, ny - 1), min(x + i, nx - 1)]
    return height
