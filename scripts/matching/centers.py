"""`custom_transforms.measuring.instance_centers.instance_centers`, faster where most particles have no hole to fill."""

from __future__ import annotations

import numba
import numpy as np

from custom_transforms.measuring.instance_centers import CLOSING_ANGSTROM, InstanceCenters, instance_centers

__all__ = ["filled_centers"]

_SLAB = 8  # slices turned into int32 at a time
_SCATTERED = 100  # box over voxels; a shell one voxel thin reaches 40 at a radius of 60 voxels


def filled_centers(labels: np.ndarray, voxel_size_zyx: np.ndarray) -> InstanceCenters:
    """Centers and diameters of the filled particles, equal to those of `instance_centers`.

    A particle each of whose rows along x is one run has no enclosed hole, for every background voxel of its box sees
    the outside along x. Its sums come from the one pass that finds this out; only the others are filled. Where the
    closing is as wide as a voxel it may change any particle, so all of them are.

    One difference: an id whose box is over 100 times its voxels names pieces far apart (a semantic map, a badly merged
    pair); it gets its plain centroid, for filling its box would take as long as filling the tomogram.

    Parameters
    ----------
    labels : ndarray, shape (Z, Y, X)
        Instance labels; below 1 is no particle. Ids up to 2^24, as label files hold them.
    voxel_size_zyx : ndarray, shape (3,)
        Å.

    Examples
    --------
    >>> found = filled_centers(np.pad(np.full((3, 3, 3), 5), 2), np.full(3, 10.0))
    >>> found.ids, found.centers_zyx_vox
    (array([5]), array([[3., 3., 3.]]))
    """
    highest = int(labels.max(initial=0))
    if np.min(voxel_size_zyx) <= CLOSING_ANGSTROM or highest > 2**24 or labels.dtype.kind not in "iu":
        return instance_centers(labels, voxel_size_zyx)
    sums = np.zeros((highest + 1, 4), np.int64)  # voxels, z, y, x
    box = np.zeros((highest + 1, 6), np.int32)  # first and last z, y, x
    last_row = np.full(highest + 1, -1, np.int64)
    broken = np.zeros(highest + 1, np.bool_)
    for z in range(0, len(labels), _SLAB):
        _scan(np.ascontiguousarray(labels[z : z + _SLAB], np.int32), z, sums, box, last_row, broken)
    ids = np.flatnonzero(sums[:, 0])
    volumes, centers = sums[ids, 0].copy(), sums[ids, 1:] / sums[ids, :1]
    diameters = np.cbrt(volumes * np.prod(voxel_size_zyx) * 6 / np.pi)
    extent = np.prod(box[ids, 1::2].astype(np.int64) - box[ids, 0::2] + 1, axis=1)
    for row in np.flatnonzero(broken[ids] & (extent <= _SCATTERED * volumes)):
        low, high = box[ids[row], 0::2], box[ids[row], 1::2] + 1
        body = labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] == ids[row]
        filled = instance_centers(body, voxel_size_zyx)
        centers[row], diameters[row] = filled.centers_zyx_vox[0] + low, filled.diameters_angstrom[0]
    return InstanceCenters(ids.astype(np.int64), centers.reshape(-1, 3), diameters)


@numba.njit(cache=True, nogil=True)
def _scan(labels, z_first, sums, box, last_row, broken):
    """Add the runs of a slab; a label that comes twice in one row is broken."""
    n_z, n_y, n_x = labels.shape
    for z in range(n_z):
        for y in range(n_y):
            row = np.int64(z + z_first) * n_y + y
            x = 0
            while x < n_x:
                label, start = labels[z, y, x], x
                while x < n_x and labels[z, y, x] == label:
                    x += 1
                if label <= 0:
                    continue
                n = x - start
                if sums[label, 0] == 0:
                    box[label, 0], box[label, 2], box[label, 4] = z + z_first, y, start
                    box[label, 3], box[label, 5] = y, x - 1
                broken[label] |= last_row[label] == row
                last_row[label] = row
                sums[label, 0] += n
                sums[label, 1] += n * (z + z_first)
                sums[label, 2] += n * y
                sums[label, 3] += n * (start + x - 1) // 2
                box[label, 1] = z + z_first
                box[label, 2] = min(box[label, 2], y)
                box[label, 3] = max(box[label, 3], y)
                box[label, 4] = min(box[label, 4], start)
                box[label, 5] = max(box[label, 5], x - 1)
