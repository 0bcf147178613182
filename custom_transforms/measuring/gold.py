"""Gold beads among the particles: small, compact, and far beyond the contrast of protein."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numba import njit
from scipy import ndimage

from custom_transforms.units import as_voxel_size_zyx

__all__ = ["GOLD_DEVIATIONS", "GOLD_DIAMETERS", "gold_beads"]

GOLD_DIAMETERS = (30.0, 250.0)  # Å; beads in use are 5 to 20 nm, and reconstruction blurs them
GOLD_DEVIATIONS = 8.0
SAMPLED_VOXELS = 4_000_000  # enough for a median, and a moment's work
SLAB_VOXELS = 2**22
GOLD_FLATNESS = 0.6  # mean over peak above half the peak: 0.7 for a blurred bead, less for a spike of noise


def gold_beads(
    image: Any, labels: Any, table: pd.DataFrame, voxel_size_zyx: np.ndarray,
    diameters: tuple[float, float] = GOLD_DIAMETERS, deviations: float = GOLD_DEVIATIONS,
) -> np.ndarray:  # fmt: skip
    """Tell which particles hold a gold bead: something small, compact and far beyond the contrast of protein.

    Around the particle's brightest voxel, the connected voxels above half its height must have a mean of at least
    ``deviations`` robust standard deviations of the tomogram, a flat top, and the volume of a sphere whose diameter
    is within ``diameters``.

    Parameters
    ----------
    image : array-like, shape (Z, Y, X)
        Protein (and gold) bright. Image and labels are only sliced, a part at a time.
    labels : array-like, shape (Z, Y, X), int
    table : DataFrame
        Particles; those with label 0 are never gold.
    voxel_size_zyx : ndarray, shape (3,)
        Å.
    diameters : tuple of 2 float
        Å.
    deviations : float

    Returns
    -------
    ndarray of bool, one per row
    """
    sizes = as_voxel_size_zyx(voxel_size_zyx)
    step = int(np.ceil(np.cbrt(np.prod(image.shape, dtype=float) / SAMPLED_VOXELS)))
    planes = [np.asarray(image[z : z + 1])[:, ::step, ::step].ravel() for z in range(0, image.shape[0], step)]
    sample = np.concatenate(planes).astype(np.float32)
    middle = float(np.median(sample))
    spread = 1.4826 * float(np.median(np.abs(sample - middle)))
    result = np.zeros(len(table), dtype=bool)
    if spread <= 0:
        return result
    reach = np.ceil(diameters[1] / sizes).astype(int)
    highest, where = _brightest(image, labels, int(table["label"].max()) if len(table) else 0)
    for row, label in enumerate(table["label"].to_numpy()):
        if label <= 0 or not highest[label] >= middle + deviations * spread:
            continue
        peak = np.array(np.unravel_index(where[label], image.shape))
        result[row] = _is_bead(image, peak, middle, reach, sizes, diameters, deviations * spread)
    return result


def _brightest(image: Any, labels: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The highest value of every label up to ``count`` and the flat index of its first voxel, in slabs."""
    highest = np.full(count + 1, -np.inf, dtype=np.float32)
    where = np.zeros(count + 1, dtype=np.int64)
    plane = labels.shape[1] * labels.shape[2]
    depth = max(1, SLAB_VOXELS // plane)
    for start in range(0, labels.shape[0], depth):
        part = np.asarray(labels[start : start + depth]).ravel()
        _raise(highest, where, part, np.asarray(image[start : start + depth], dtype=np.float32).ravel(), start * plane)
    return highest, where


@njit(nogil=True, cache=True)
def _raise(highest, where, labels, values, offset):
    for at in range(labels.size):
        label = labels[at]
        if 0 < label < highest.size and values[at] > highest[label]:
            highest[label] = values[at]
            where[label] = offset + at


def _is_bead(
    image: Any, peak: np.ndarray, middle: float, reach: np.ndarray, sizes: np.ndarray,
    diameters: tuple[float, float], lowest: float,
) -> bool:  # fmt: skip
    """Judge the connected voxels above half the peak, which are looked for ``reach`` voxels around it.

    Most beads and particles are small: the window grows until it holds all of them, or already too many.
    """
    shape = np.array(image.shape)
    near = np.maximum(reach // 4, 1)
    while True:
        first, last = np.maximum(peak - near, 0), np.minimum(peak + near + 1, shape)
        window = image[tuple(slice(a, b) for a, b in zip(first, last, strict=True))] - middle
        height = float(window[tuple(peak - first)])
        parts, _ = ndimage.label(window > height / 2)
        inside = parts == parts[tuple(peak - first)]
        diameter = float((inside.sum() * sizes.prod() * 6 / np.pi) ** (1 / 3))
        if diameter > diameters[1]:
            return False
        ends = np.array([[inside.take(i, axis).any() for i in (0, -1)] for axis in range(3)])
        cut = ends & np.stack([first > 0, last < shape], 1)
        if (near >= reach).all() or not cut.any():
            mean = float(window[inside].mean())
            return diameter >= diameters[0] and mean >= lowest and mean >= GOLD_FLATNESS * height
        near = np.minimum(2 * near, reach)
