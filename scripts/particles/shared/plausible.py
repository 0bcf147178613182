"""Whether the positions of a list can be those of its tomogram."""

from __future__ import annotations

import warnings

import numpy as np

from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.context import ParticleListWarning

__all__ = ["check_fractions", "check_positions"]

_FACTORS = (2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 16.0)  # binnings; 10 is Å for nm, too
_EDGE = 1.0  # voxels beyond the outermost voxels' centers that are still the border
_FEW = 5  # so many particles in one corner of the tomogram are no chance


def check_fractions(coordinates_xyz: np.ndarray, what: str) -> None:
    """Raise ValueError if coordinates, shape (n, 3), in the unit of their list, are fractions of a volume."""
    if not len(coordinates_xyz) or np.abs(coordinates_xyz).max() > 1:
        return
    if (np.abs(coordinates_xyz - np.round(coordinates_xyz)) > 1e-3).any():
        raise ValueError(
            f"{what}: all coordinates lie between 0 and 1: they are fractions of the volume, or in another unit. "
            "Multiply them by the tomogram's size in the list's unit."
        )


def check_positions(
    particles: ParticleList,
    what: str,
    voxel_size_zyx: np.ndarray | float | None,
    size_zyx: tuple[int, ...] | None,
    binning: float | None = None,
) -> None:
    """Refuse positions that cannot be of the tomogram, and warn of those that look wrong.

    A list that lies outside as a whole is an error, which says by how much it would fit. Some particles outside, or all
    in one corner as with a wrong binning, are a `ParticleListWarning`.

    Parameters
    ----------
    particles : ParticleList
        Of one tomogram.
    what : str
        List and tomogram, for the message.
    voxel_size_zyx : ndarray, shape (3,), float or None
        Å.
    size_zyx : tuple of 3 int or None
        Voxels of the tomogram. Without size and voxel size, nothing is checked.
    binning : float, optional
        With which the list was read; None if it does not count in pixels of the tilt series.
    """
    if len(particles) == 0 or voxel_size_zyx is None or size_zyx is None:
        return
    voxel_xyz = np.broadcast_to(np.asarray(voxel_size_zyx, dtype=float), 3)[::-1]
    voxels = particles.centers_xyz_angstrom / voxel_xyz
    size_xyz = np.array(size_zyx[::-1], dtype=float)
    outside = ((voxels < -_EDGE) | (voxels > size_xyz - 1 + _EDGE)).any(axis=1)
    extent = f"{_range(voxels)} voxels (x, y, z) in a tomogram of {' x '.join(f'{n:g}' for n in size_xyz)}"
    if outside.all():
        raise ValueError(
            f"{what}: {'its position lies' if len(voxels) == 1 else f'all {len(voxels)} positions lie'} outside of the "
            f"tomogram: {extent}. " + _advice(voxels, size_xyz, voxel_xyz, binning)
        )
    if outside.any():
        advice = f" {_advice(voxels, size_xyz, voxel_xyz, binning)}" if outside.mean() > 0.5 else ""
        _warn(f"{what}: {int(outside.sum())} of {len(voxels)} positions lie outside of the tomogram: {extent}.{advice}")
        return
    share = float((voxels.max(axis=0) / (size_xyz - 1)).max())
    if len(voxels) >= _FEW and share <= 0.52:
        _warn(
            f"{what}: all {len(voxels)} positions lie in the first {share:.0%} of the tomogram along every axis: "
            f"{extent}. Check the binning and the voxel size."
        )


def _advice(voxels: np.ndarray, size_xyz: np.ndarray, voxel_xyz: np.ndarray, binning: float | None) -> str:
    """Which binning or unit would bring the positions into the tomogram."""
    for factor in _FACTORS:
        if _fits(voxels / factor, size_xyz):
            settled = f"--binning {factor * binning:g}, or " if binning else ""
            return (
                f"Divided by {factor:g} they would fit (binning {factor:g}): give {settled}the voxel size, the unit or "
                "the tomogram that they were made on."
            )
    if _fits(voxels / voxel_xyz, size_xyz):
        return "As Å instead of voxels they would fit: name the columns x_angstrom, y_angstrom, z_angstrom."
    if (voxels < -_EDGE).any() and _fits(voxels + size_xyz / 2, size_xyz):
        return "Counted from the middle of the tomogram they would fit: name the format that counts so."
    return "Is it the list of this tomogram, and are binning and voxel size right?"


def _fits(voxels: np.ndarray, size_xyz: np.ndarray) -> bool:
    inside = ((voxels >= -_EDGE) & (voxels <= size_xyz - 1 + _EDGE)).all(axis=1)
    return float(inside.mean()) >= 0.95


def _range(voxels: np.ndarray) -> str:
    return ", ".join(f"{low:.4g} to {high:.4g}" for low, high in zip(voxels.min(0), voxels.max(0), strict=True))


def _warn(text: str) -> None:
    warnings.warn(text, ParticleListWarning, stacklevel=3)
