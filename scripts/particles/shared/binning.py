"""Between Å in the tomogram in use and pixels of the unbinned tilt series.

A binned voxel i is the mean of unbinned pixels b*i ... b*i + b - 1, so its center is at b*i + (b - 1) / 2.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from scripts.particles.shared.context import TomogramContext

__all__ = ["angstrom_to_unbinned_xyz", "listed_voxel_to_angstrom_xyz", "unbinned_pixel_xyz", "unbinned_to_angstrom_xyz"]


def unbinned_pixel_xyz(context: TomogramContext, format_name: str) -> np.ndarray:
    """Å per unbinned pixel along X, Y, Z."""
    return context.voxel_size_xyz(format_name) / context.factor


def angstrom_to_unbinned_xyz(centers_xyz_angstrom: np.ndarray, context: TomogramContext, format_name: str):
    """Å (index times voxel size, shape (n, 3)) to unbinned pixels.

    Examples
    --------
    >>> angstrom_to_unbinned_xyz(np.zeros((1, 3)), TomogramContext(voxel_size_zyx=10.0, binning=4), "x")
    array([[1.5, 1.5, 1.5]])
    """
    binned = np.asarray(centers_xyz_angstrom) / context.voxel_size_xyz(format_name)
    return context.factor * binned + (context.factor - 1) / 2


def unbinned_to_angstrom_xyz(unbinned_xyz: np.ndarray, context: TomogramContext, format_name: str) -> np.ndarray:
    """Unbinned pixels, shape (n, 3), to Å; the inverse of `angstrom_to_unbinned_xyz`."""
    binned = (np.asarray(unbinned_xyz) - (context.factor - 1) / 2) / context.factor
    return binned * context.voxel_size_xyz(format_name)


def listed_voxel_to_angstrom_xyz(voxels_xyz: np.ndarray, context: TomogramContext, format_name: str) -> np.ndarray:
    """Voxels of the tomogram that a list was made on, shape (n, 3), to Å in the tomogram in use.

    Examples
    --------
    >>> listed_voxel_to_angstrom_xyz(np.array([[1.0, 3, 5]]), TomogramContext(voxel_size_zyx=20.0, list_binning=2), "x")
    array([[ 5., 25., 45.]])
    """
    return unbinned_to_angstrom_xyz(voxels_xyz, replace(context, binning=context.list_binning), format_name)
