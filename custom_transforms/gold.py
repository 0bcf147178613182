"""Gold beads among the particles: small, compact, and far beyond the contrast of protein."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import ndimage

from custom_transforms.slabs import slabs
from custom_transforms.units import as_voxel_size_zyx

__all__ = ["GOLD_DEVIATIONS", "GOLD_DIAMETERS", "gold_beads"]

GOLD_DIAMETERS = (30.0, 250.0)  # Å; beads in use are 5 to 20 nm, and reconstruction blurs them
GOLD_DEVIATIONS = 8.0
GOLD_FLATNESS = 0.6  # mean over peak above half the peak: 0.7 for a blurred bead, less for a spike of noise


def gold_beads(
    image: np.ndarray, labels: np.ndarray, table: pd.DataFrame, voxel_size_zyx: np.ndarray,
    diameters: tuple[float, float] = GOLD_DIAMETERS, deviations: float = GOLD_DEVIATIONS,
) -> np.ndarray:  # fmt: skip
    """Tell which particles hold a gold bead: something small, compact and far beyond the contrast of protein.

    Around the particle's brightest voxel, the connected voxels above half its height must have a mean of at least
    ``deviations`` robust standard deviations of the tomogram, a flat top, and the volume of a sphere whose diameter
    is within ``diameters``.

    Parameters
    ----------
    image : ndarray, shape (Z, Y, X)
        Protein (and gold) bright.
    labels : ndarray, shape (Z, Y, X), int
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
    sample = np.concatenate([slab[:, ::3, ::3].ravel() for slab in slabs(image)]).astype(np.float32)
    middle = float(np.median(sample))
    spread = 1.4826 * float(np.median(np.abs(sample - middle)))
    result = np.zeros(len(table), dtype=bool)
    if spread <= 0:
        return result
    reach = np.ceil(diameters[1] / sizes).astype(int)
    boxes = ndimage.find_objects(labels)
    for row, label in enumerate(table["label"].to_numpy()):
        box = boxes[label - 1] if 0 < label <= len(boxes) else None
        if box is None:
            continue
        values = np.where(labels[box] == label, image[box], -np.inf)
        if values.max() < middle + deviations * spread:
            continue
        peak = np.array(np.unravel_index(values.argmax(), values.shape)) + [one.start for one in box]
        first = np.maximum(peak - reach, 0)
        window = tuple(slice(a, b) for a, b in zip(first, peak + reach + 1, strict=True))
        result[row] = _is_bead(image[window] - middle, tuple(peak - first), sizes, diameters, deviations * spread)
    return result


def _is_bead(
    window: np.ndarray, peak: tuple[int, ...], sizes: np.ndarray, diameters: tuple[float, float], lowest: float
) -> bool:
    """Judge the connected voxels above half the peak; ``window`` has the background taken off."""
    height = float(window[peak])
    parts, _ = ndimage.label(window > height / 2)
    bead = parts == parts[peak]
    diameter = float((bead.sum() * sizes.prod() * 6 / np.pi) ** (1 / 3))
    mean = float(window[bead].mean())
    return diameters[0] <= diameter <= diameters[1] and mean >= lowest and mean >= GOLD_FLATNESS * height
