"""Shapes of particle classes, and the voxels that one particle of a shape covers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation
from skimage.filters import threshold_otsu

from custom_transforms.units import as_voxel_size_zyx
from custom_transforms.volumes.read import read_tomogram

__all__ = ["Footprint", "Shape", "Sphere", "Template", "load_template", "template_from_array"]

_TIE = 1e-4  # of the range: a voxel that lies on the surface belongs to the particle, whatever the rounding
_FRACTION_DECIMALS = 6  # so that a shift by whole voxels changes nothing


@dataclass(frozen=True)
class Footprint:
    """The voxels one particle covers.

    ``start_zyx`` is the array index of the first voxel of ``mask`` (bool, (Z, Y, X)); it may be negative, and the
    mask may reach beyond the volume.
    """

    start_zyx: np.ndarray
    mask: np.ndarray


class Shape(Protocol):
    """What a class looks like."""

    @property
    def radius_angstrom(self) -> float:
        """Å, of the sphere of the same volume."""

    @property
    def needs_orientation(self) -> bool:
        """Whether particles without angles cannot be painted."""

    def centroid_offset_xyz(self, rotation: Rotation | None) -> np.ndarray:
        """From the reference point of a particle to its centroid: Å, (X, Y, Z), shape (3,)."""

    def footprint(self, center_zyx_vox: np.ndarray, rotation: Rotation | None, voxel_size_zyx: np.ndarray) -> Footprint:
        """Voxels of a particle whose reference point is at a sub-voxel array index."""


@dataclass(frozen=True)
class Sphere:
    """A ball of a radius in Å; a voxel belongs to it if its center does."""

    radius_angstrom: float
    needs_orientation: bool = False

    def __post_init__(self) -> None:
        if not np.isfinite(self.radius_angstrom) or self.radius_angstrom <= 0:
            raise ValueError(f"radius: expected a number above 0 in Å, got {self.radius_angstrom!r}.")

    def centroid_offset_xyz(self, rotation: Rotation | None) -> np.ndarray:
        """Zero: a ball has its centroid in its middle."""
        return np.zeros(3)

    def footprint(self, center_zyx_vox: np.ndarray, rotation: Rotation | None, voxel_size_zyx: np.ndarray) -> Footprint:
        """Voxels whose center is within the radius; at least the one that holds the center."""
        whole, fraction = _split(center_zyx_vox)
        reach = np.ceil(self.radius_angstrom / voxel_size_zyx).astype(int) + 1
        axes = [
            ((np.arange(-n, n + 1) - f) * size) ** 2 for n, f, size in zip(reach, fraction, voxel_size_zyx, strict=True)
        ]
        squared = axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :]
        mask = squared <= (self.radius_angstrom + _TIE * voxel_size_zyx.min()) ** 2
        mask[tuple(np.round(fraction).astype(int) + reach)] = True
        return _trimmed(whole - reach, mask)


@dataclass(frozen=True)
class Template:
    """A density or mask on a grid, turned by each particle's orientation about its reference point.

    Parameters
    ----------
    density : ndarray, shape (Z, Y, X), float32
        The part around the particle.
    level : float
        The particle is where the (linearly interpolated) density is at least this.
    reference_zyx : ndarray, shape (3,)
        Index in ``density`` of the point that particle lists speak of.
    centroid_zyx : ndarray, shape (3,)
        Index in ``density`` of the centroid of the filled particle.
    voxel_size_zyx : ndarray, shape (3,)
        Å per voxel of ``density``.
    radius_angstrom : float
        Of the sphere of the same volume.
    """

    density: np.ndarray
    level: float
    reference_zyx: np.ndarray
    centroid_zyx: np.ndarray
    voxel_size_zyx: np.ndarray
    radius_angstrom: float
    needs_orientation: bool = True

    def centroid_offset_xyz(self, rotation: Rotation | None) -> np.ndarray:
        """The template's offset, turned into the tomogram."""
        offset = ((self.centroid_zyx - self.reference_zyx) * self.voxel_size_zyx)[::-1]
        return np.asarray(offset if rotation is None else rotation.apply(offset))

    def footprint(self, center_zyx_vox: np.ndarray, rotation: Rotation | None, voxel_size_zyx: np.ndarray) -> Footprint:
        """Interpolate the density at every voxel of the particle's bounding box and compare it with the level."""
        whole, fraction = _split(center_zyx_vox)
        turn = np.eye(3) if rotation is None else rotation.as_matrix()[::-1, ::-1]  # (x, y, z) to (z, y, x)
        low, high = self._box(turn)
        first = np.floor(low / voxel_size_zyx + fraction).astype(int)
        last = np.ceil(high / voxel_size_zyx + fraction).astype(int)
        # template index = reference + turn^-1 (v - center) in Å / template voxel
        matrix = turn.T * voxel_size_zyx / self.voxel_size_zyx[:, None]
        sampled = ndimage.affine_transform(
            self.density,
            matrix,
            offset=self.reference_zyx + matrix @ (first - fraction),
            output_shape=tuple(last - first + 1),
            order=1,
            mode="constant",
            cval=float(self.density.min()),
            prefilter=False,
        )
        tie = _TIE * (float(self.density.max()) - self.level)
        return _trimmed(whole + first, sampled >= self.level - tie)

    def _box(self, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest Å (Z, Y, X) from the reference point that the turned grid can reach."""
        shape = np.array(self.density.shape)
        middle = turn @ (((shape - 1) / 2 - self.reference_zyx) * self.voxel_size_zyx)
        half = np.abs(turn) @ ((shape - 1) / 2 * self.voxel_size_zyx)
        return middle - half, middle + half


def load_template(
    path: Path | str,
    voxel_size: float | None = None,
    threshold: float | None = None,
    invert: bool = False,
    target_voxel_size_zyx: np.ndarray | None = None,
) -> Template:
    """Read a mask or density map.

    Parameters
    ----------
    path : path
        MRC (or any format `read_tomogram` takes).
    voxel_size : float, optional
        Å; replaces the header's. Required where the header has 0 or exactly 1.0.
    threshold : float, optional
        Level of the surface; by default 0.5 for a mask, Otsu's for a density.
    invert : bool
        The density is dark (protein low).
    target_voxel_size_zyx : ndarray, shape (3,), optional
        Voxel size of the tomogram: a finer template is smoothed to it first.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file cannot be read, or no voxel is above the threshold.
    """
    try:
        volume, metadata = read_tomogram(path, voxel_size=voxel_size)
    except ValueError as error:
        raise ValueError(str(error).replace("--voxel_size", "--template_voxel_size")) from error
    density = np.asarray(volume, dtype=np.float32)
    try:
        return template_from_array(
            -density if invert else density, metadata["voxel_size_zyx"], threshold, target_voxel_size_zyx
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def template_from_array(
    density: np.ndarray,
    voxel_size_zyx: float | np.ndarray,
    threshold: float | None = None,
    target_voxel_size_zyx: np.ndarray | None = None,
) -> Template:
    """Make a template from a volume (Z, Y, X); its reference point is index n // 2 on each axis.

    Examples
    --------
    >>> box = np.zeros((8, 8, 8), np.float32)
    >>> box[3:6, 3:6, 3:7] = 1
    >>> template = template_from_array(box, 10.0)
    >>> template.centroid_offset_xyz(None)
    array([5., 0., 0.])
    """
    voxel_size_zyx = as_voxel_size_zyx(voxel_size_zyx)
    density = np.asarray(density, dtype=np.float32)
    level = float(threshold) if threshold is not None else _surface_level(density)
    inside = density >= level
    if not inside.any() or inside.all():
        what = "no voxel reaches" if not inside.any() else "every voxel reaches"
        raise ValueError(
            f"{what} the threshold {level:g} (values {density.min():g} to {density.max():g}). "
            "Give another --threshold, or --invert for a dark density."
        )
    filled = ndimage.binary_fill_holes(_closed(inside))
    reference = np.array(density.shape) // 2
    centroid = np.array(ndimage.center_of_mass(filled))
    radius = float((3 * inside.sum() * voxel_size_zyx.prod() / (4 * np.pi)) ** (1 / 3))
    if target_voxel_size_zyx is not None and (np.asarray(target_voxel_size_zyx) / voxel_size_zyx > 1.5).any():
        # point samples of a fine template would miss thin parts: smooth it to the tomogram's voxel, surface at half
        sigma = 0.4 * np.maximum(np.asarray(target_voxel_size_zyx) / voxel_size_zyx, 1.0)
        density, level = ndimage.gaussian_filter(inside.astype(np.float32), sigma, mode="constant"), 0.5
        inside = density >= level if (density >= level).any() else inside
    box = ndimage.find_objects(inside.view(np.uint8))[0]
    start = np.array([max(s.start - 1, 0) for s in box])
    stop = np.array([min(s.stop + 1, n) for s, n in zip(box, density.shape, strict=True)])
    cut = density[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    cut = np.pad(cut, 1, constant_values=float(min(density.min(), level - abs(level))))
    start = start - 1
    return Template(cut, level, reference - start, centroid - start, voxel_size_zyx, radius)


def _surface_level(density: np.ndarray) -> float:
    """0.5 for a mask (two values, 0 and 1), else Otsu's threshold."""
    values = np.unique(density)
    if values.size == 1:
        raise ValueError(f"expected a density or mask, got the constant {values[0]:g}.")
    return 0.5 if values.size == 2 and values[0] == 0 and values[1] == 1 else float(threshold_otsu(density))


def _closed(inside: np.ndarray) -> np.ndarray:
    padded = np.pad(inside, 2)
    return ndimage.binary_closing(padded, ndimage.generate_binary_structure(3, 1))[2:-2, 2:-2, 2:-2] | inside


def _split(center_zyx_vox: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    whole = np.floor(center_zyx_vox).astype(int)
    return whole, np.round(center_zyx_vox - whole, _FRACTION_DECIMALS)


def _trimmed(start_zyx: np.ndarray, mask: np.ndarray) -> Footprint:
    boxes = ndimage.find_objects(mask.view(np.uint8))
    if not boxes:
        return Footprint(start_zyx, mask[:0, :0, :0])
    return Footprint(start_zyx + np.array([s.start for s in boxes[0]]), mask[boxes[0]])
