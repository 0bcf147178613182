"""Bring volumes and positions to another voxel size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from custom_transforms.units import as_voxel_size_zyx

__all__ = ["Grid", "resample_grid"]

_SAME = 0.01  # voxel sizes that differ by less are the same


@dataclass(frozen=True)
class Grid:
    """How a tomogram's voxels become larger or smaller ones.

    New voxel i has its center at old index f*i + (f - 1)/2, so that a whole f is binning by block means.

    Parameters
    ----------
    old_size_zyx, new_size_zyx : tuple of 3 int
    old_voxel_size_zyx, new_voxel_size_zyx : ndarray, shape (3,), Å
    """

    old_size_zyx: tuple[int, int, int]
    new_size_zyx: tuple[int, int, int]
    old_voxel_size_zyx: np.ndarray
    new_voxel_size_zyx: np.ndarray

    @property
    def factor_zyx(self) -> np.ndarray:
        """New voxel over old voxel, shape (3,)."""
        return self.new_voxel_size_zyx / self.old_voxel_size_zyx

    @property
    def is_same(self) -> bool:
        """Whether nothing changes."""
        return self.old_size_zyx == self.new_size_zyx and bool(np.allclose(self.factor_zyx, 1))

    @property
    def shift_xyz_angstrom(self) -> np.ndarray:
        """Å from the old first voxel's center to the new one's, (X, Y, Z)."""
        return ((self.factor_zyx - 1) / 2 * self.old_voxel_size_zyx)[::-1]

    def move_centers(self, centers_xyz_angstrom: np.ndarray) -> np.ndarray:
        """Å of the old tomogram, shape (n, 3), to Å of the new one (index times voxel size in each)."""
        return np.asarray(centers_xyz_angstrom) - self.shift_xyz_angstrom

    def resample(self, volume: np.ndarray) -> np.ndarray:
        """Average (or, for smaller voxels, interpolate linearly) a volume onto the new grid; float32, (Z, Y, X).

        Where the grid is the same, the volume itself.
        """
        if self.is_same:
            return volume
        z_weights, y_weights, x_weights = (
            _weights(n, m, f) for n, m, f in zip(self.old_size_zyx, self.new_size_zyx, self.factor_zyx, strict=True)
        )
        planes = np.empty((volume.shape[0], *self.new_size_zyx[1:]), dtype=np.float32)
        for index, plane in enumerate(volume):  # plane by plane: the volume may be a memory map
            rows = y_weights @ np.asarray(plane, dtype=np.float32)
            planes[index] = (x_weights @ rows.T).T
        return (z_weights @ planes.reshape(len(planes), -1)).reshape(self.new_size_zyx)

    def pick(self, labels: np.ndarray) -> np.ndarray:
        """Take the nearest old voxel for each new one: for labels and masks; the volume itself on the same grid."""
        if self.is_same:
            return labels
        index = [
            np.clip(np.round(f * np.arange(m) + (f - 1) / 2).astype(int), 0, n - 1)
            for n, m, f in zip(self.old_size_zyx, self.new_size_zyx, self.factor_zyx, strict=True)
        ]
        return labels[np.ix_(*index)]


def resample_grid(size_zyx: Sequence[int], voxel_size_zyx: np.ndarray, target: float | None) -> Grid:
    """The grid of a tomogram at a target voxel size in Å; its own if the target is None or within 1 %.

    Examples
    --------
    >>> resample_grid((9, 20, 28), np.full(3, 5.0), 10.0).new_size_zyx
    (4, 10, 14)
    """
    old = as_voxel_size_zyx(voxel_size_zyx)
    size = (int(size_zyx[0]), int(size_zyx[1]), int(size_zyx[2]))
    new = old if target is None else as_voxel_size_zyx(target)
    if np.abs(new / old - 1).max() < _SAME:
        return Grid(size, size, old, old)
    n = np.floor(np.array(size) * old / new + 1e-6).astype(int)
    if (n < 2).any():
        raise ValueError(
            f"--voxel_size {target:g} Å would leave {' x '.join(map(str, n))} voxels of a tomogram of "
            f"{' x '.join(map(str, size))} at {old.max():g} Å. Give a smaller voxel size."
        )
    return Grid(size, (int(n[0]), int(n[1]), int(n[2])), old, new)


def _weights(old: int, new: int, factor: float) -> sparse.csr_array:
    """Weights, shape (new, old), rows sum to 1: overlap of voxels for a factor >= 1, else linear interpolation."""
    rows, columns, values = [], [], []
    for i in range(new):
        if factor >= 1:
            low, high = factor * i - 0.5, factor * (i + 1) - 0.5
            touched = np.arange(max(0, int(np.floor(low + 0.5))), min(old, int(np.ceil(high + 0.5))))
            weight = np.minimum(touched + 0.5, high) - np.maximum(touched - 0.5, low)
        else:
            position = np.clip(factor * i + (factor - 1) / 2, 0, old - 1)
            touched = np.arange(int(position), min(int(position) + 2, old))
            weight = 1 - np.abs(touched - position)
        keep = weight > 1e-9
        rows += [i] * int(keep.sum())
        columns += touched[keep].tolist()
        values += (weight[keep] / weight[keep].sum()).tolist()
    return sparse.csr_array((np.array(values, dtype=np.float32), (rows, columns)), shape=(new, old))
