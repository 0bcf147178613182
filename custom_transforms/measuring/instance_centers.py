"""Where the particles of a label volume are and how large: their centers and diameters, on filled shapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cc3d
import edt
import numpy as np
import torch
from monai.data import MetaTensor
from scipy import ndimage

from custom_transforms.units import as_voxel_size_zyx

__all__ = [
    "CLOSING_ANGSTROM",
    "InstanceCenters",
    "as_label_volume",
    "distance_to_outside",
    "instance_boxes",
    "instance_centers",
]

CLOSING_ANGSTROM = 5.0
LARGEST_ID = 2**24  # what a float32 label file holds exactly

Box = tuple[slice, slice, slice]


class InstanceCenters(NamedTuple):
    """Where the particles of a label volume are and how large; one entry per particle, ids ascending."""

    ids: np.ndarray  # (n,) int64
    centers_zyx_vox: np.ndarray  # (n, 3) float64
    diameters_angstrom: np.ndarray  # (n,) float64


def instance_centers(
    labels: np.ndarray | torch.Tensor,
    voxel_size_zyx: float | tuple[float, float, float] | np.ndarray,
    closing_angstrom: float = CLOSING_ANGSTROM,
) -> InstanceCenters:
    """Measure every particle's center and size on its filled shape.

    A particle is filled before it is measured: enclosed holes are filled (a hole is what the outside
    cannot reach through voxel faces; one that is open at the volume's border is no hole), then gaps
    narrower than about twice ``closing_angstrom`` are closed by a ball. Hollow and concave complexes
    so have a center, too, and the size of the whole complex.

    Parameters
    ----------
    labels : ndarray or torch.Tensor, shape (Z, Y, X) or (1, Z, Y, X)
        Instance labels.
    voxel_size_zyx : float or sequence of 3 floats
        Å per voxel along Z, Y, X.
    closing_angstrom : float
        Radius of the closing, Å; nothing is closed when it is below one voxel.

    Returns
    -------
    InstanceCenters
        ``ids``, ``centers_zyx_vox`` (sub-voxel centroids; voxel i has its center at i) and ``diameters_angstrom``
        (of the sphere of equal volume). n is 0 without particles. Two pieces with one id are one particle.

    Raises
    ------
    ValueError
        If the labels are no label volume, or the voxel size or closing is out of range; names which.

    Examples
    --------
    >>> shell = np.ones((3, 3, 3), int)
    >>> shell[1, 1, 1] = 0
    >>> found = instance_centers(np.pad(shell, 2), 10.0)
    >>> found.centers_zyx_vox, found.diameters_angstrom.round(1)
    (array([[3., 3., 3.]]), array([37.2]))
    """
    size = as_voxel_size_zyx(voxel_size_zyx)
    if not closing_angstrom >= 0:
        raise ValueError(f"closing_angstrom: expected a number >= 0 in Å, got {closing_angstrom}.")
    volume = as_label_volume(labels)
    ids, centers, volumes = [], [], []
    for label, box in instance_boxes(volume):
        filled, pad = _fill(volume[box] == label, size, closing_angstrom)
        count = int(filled.sum())
        profiles = [filled.sum(axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
        offset = [float(profile @ np.arange(profile.size)) / count for profile in profiles]
        centers.append([at.start - p + o for at, p, o in zip(box, pad, offset, strict=True)])
        ids.append(label)
        volumes.append(count)
    diameters = np.cbrt(np.asarray(volumes, np.float64) * size.prod() * 6 / np.pi)
    return InstanceCenters(np.asarray(ids, np.int64), np.asarray(centers, np.float64).reshape(-1, 3), diameters)


def distance_to_outside(mask: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Å from each voxel of the mask to the nearest one outside, inf if there is none; 0 outside."""
    # edt is three times faster on bytes than on booleans
    return edt.edt(mask.view(np.uint8), anisotropy=tuple(size), black_border=False)


def _fill(mask: np.ndarray, size: np.ndarray, closing_angstrom: float) -> tuple[np.ndarray, np.ndarray]:
    """The filled and closed mask on a padded box, and the padding per axis."""
    closes = closing_angstrom >= size.min()
    pad = (np.ceil(closing_angstrom / size) + 1).astype(int) if closes else np.ones(3, int)
    padded = np.pad(mask, [(p, p) for p in pad])
    outside = cc3d.connected_components(~padded, connectivity=6)
    filled = outside != outside[0, 0, 0]
    if closes:
        radius = closing_angstrom * (1 + 1e-5)  # a distance of exactly the radius is within it
        grown = distance_to_outside(~filled, size) <= radius
        filled = distance_to_outside(grown, size) > radius
    return filled, pad


def instance_boxes(volume: np.ndarray) -> Iterator[tuple[int, Box]]:
    """Each id with its bounding box, ascending; ids below 1 are no instance."""
    for index, box in enumerate(ndimage.find_objects(volume)):
        if box is not None:
            yield index + 1, box


def as_label_volume(labels: np.ndarray | torch.Tensor) -> np.ndarray:
    """Labels as an integer array (Z, Y, X); no copy where the type allows it."""
    if isinstance(labels, torch.Tensor):
        labels = (labels.as_tensor() if isinstance(labels, MetaTensor) else labels).detach().cpu().numpy()
    volume = labels[0] if labels.ndim == 4 and labels.shape[0] == 1 else labels
    if volume.ndim != 3:
        raise ValueError(f"labels: expected the shape (Z, Y, X) or (1, Z, Y, X), got {labels.shape}.")
    if volume.size and not float(volume.max()) <= LARGEST_ID:
        raise ValueError(
            f"labels: expected whole numbers up to {LARGEST_ID:,}, got {volume.max()}. Renumber the particles from 1."
        )
    if volume.dtype.kind == "b":
        return volume.view(np.int8)
    if volume.dtype.kind == "f":
        whole = volume.astype(np.int32)
        if not np.array_equal(whole, volume):
            raise ValueError(
                "labels: expected whole numbers (0 background, 1, 2, ... particles, -1 ignored), got fractions or "
                "NaN. A label volume must never be interpolated: resample it with the nearest voxel."
            )
        return whole
    return volume.astype(np.int32) if volume.dtype == np.uint64 else volume
