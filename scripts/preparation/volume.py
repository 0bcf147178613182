"""Volumes that `prepare` is given: labels of any numbering to particles 1..n, their measures, and regions."""

from __future__ import annotations

import re
from collections.abc import Sequence

import cc3d
import fastremap
import numpy as np

from custom_transforms.volumes.lazy import read_region_mask
from custom_transforms.volumes.slabs import chunks
from scripts.preparation.painting import IGNORE

__all__ = ["apply_numbers", "is_box", "label_dtype", "measure_labels", "number_components", "number_ids", "read_region"]


def label_dtype(count: int) -> np.dtype:
    """The smallest type for labels -1..count.

    Examples
    --------
    >>> label_dtype(32_767).name, label_dtype(32_768).name
    ('int16', 'int32')
    """
    return np.dtype(np.int16 if count <= np.iinfo(np.int16).max else np.int32)


def number_ids(given: np.ndarray) -> tuple[np.ndarray, int]:
    """Give the ids above 0 the numbers 1..n in their order; below 0 becomes -1.

    Parameters
    ----------
    given : ndarray, shape (Z, Y, X)
        Whole numbers of any real dtype; only read. The ids may be huge and sparse.

    Returns
    -------
    labels : ndarray, shape (Z, Y, X), int16 or int32
    count : int
        n, possibly 0.
    """
    found: set[int] = set()
    for chunk in chunks(given):
        found.update(fastremap.unique(_native(chunk)).tolist())
    ids = sorted(value for value in found if value > 0)
    numbers = dict.fromkeys((value for value in found if value < 0), IGNORE) | {0: 0}
    numbers.update({value: number for number, value in enumerate(ids, start=1)})
    labels = np.empty(given.shape, dtype=label_dtype(len(ids)))
    for source, target in zip(chunks(given), chunks(labels), strict=True):
        # int64 holds every id and -1, whatever the file's type
        target[...] = fastremap.remap(_native(source).astype(np.int64), numbers, in_place=True)
    return labels, len(ids)


def number_components(given: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the connected components (26 neighbors) of a mask, shape (Z, Y, X), 1..n; below 0 becomes -1."""
    components, count = cc3d.connected_components(
        np.asarray(given > 0), connectivity=26, return_N=True, binary_image=True
    )
    signed = np.dtype(f"i{components.dtype.itemsize}")
    # where the numbers fit, the same memory read with a sign; no second volume
    labels = components.view(signed) if count <= np.iinfo(signed).max else components.astype(label_dtype(count))
    for plane, source in zip(labels, given, strict=True):
        plane[np.asarray(source) < 0] = IGNORE
    return labels, int(count)


def apply_numbers(labels: np.ndarray, numbers: np.ndarray) -> None:
    """Renumber particles in place: label i becomes ``numbers[i]``, shape (n + 1,); 0 and -1 stay."""
    for plane in labels:
        positive = plane > 0
        plane[positive] = numbers[plane[positive]]


def measure_labels(labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measure the particles 1..count of labels (Z, Y, X), plane by plane.

    Returns
    -------
    volumes : ndarray, shape (count,), int64
        Voxels; 0 for a label that does not occur.
    centers_zyx_vox : ndarray, shape (count, 3)
        Centroids; NaN for a label that does not occur.
    touches_border : ndarray, shape (count,), bool
    """
    volumes = np.zeros(count + 1, dtype=np.int64)
    sums = np.zeros((3, count + 1))
    for z, plane in enumerate(labels):
        y, x = np.nonzero(plane > 0)
        if len(y) == 0:
            continue
        label = plane[y, x]
        voxels = np.bincount(label, minlength=count + 1)
        volumes += voxels
        sums[0] += z * voxels
        sums[1] += np.bincount(label, weights=y, minlength=count + 1)
        sums[2] += np.bincount(label, weights=x, minlength=count + 1)
    with np.errstate(invalid="ignore"):
        centers = (sums / volumes).T
    touches = np.zeros(count + 1, dtype=bool)
    for axis in range(3):
        for face in (labels.take(0, axis=axis), labels.take(-1, axis=axis)):
            touches[face[face > 0]] = True
    return volumes[1:], centers[1:], touches[1:]


def _native(chunk: np.ndarray) -> np.ndarray:
    """A contiguous integer array in the machine's byte order, which the compiled library needs."""
    kind = chunk.dtype.kind
    return np.ascontiguousarray(chunk, dtype=np.int64 if kind in "fb" else chunk.dtype.newbyteorder("="))


def is_box(region: str) -> bool:
    """Tell whether a region is a box, not a file."""
    return re.fullmatch(r"\s*-?\d*:-?\d*(\s*,\s*-?\d*:-?\d*){2}\s*", region) is not None


def read_region(region: str, name: str, size_zyx: Sequence[int], option: str = "--region") -> np.ndarray:
    """A bool mask, shape (Z, Y, X), of the annotated part of a tomogram.

    ``region`` is a mask file, or a box ``z0:z1,y0:y1,x0:x1`` in voxels, where
    empty numbers reach to the border.

    Examples
    --------
    >>> int(read_region("1:3,:,0:2", "t", (4, 5, 6)).sum())
    20
    """
    if is_box(region):
        mask = np.zeros(tuple(size_zyx), dtype=bool)
        limits = [[int(n) if n.strip() else None for n in part.split(":")] for part in region.split(",")]
        mask[tuple(slice(*pair) for pair in limits)] = True
    else:
        mask = read_region_mask(region, size_zyx)
    if not mask.any():
        raise ValueError(f"{option} {region} holds no voxel of {name}; its size is {tuple(size_zyx)} (Z, Y, X).")
    return mask
