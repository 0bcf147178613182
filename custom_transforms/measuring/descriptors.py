"""Numbers that describe a particle whichever way it is turned: density and mask around its center, surroundings.

Density, the particle's own mask and the masks of the others are expanded in shells around the center and spherical
harmonics; what is kept are products of the coefficients that no rotation changes (the power spectrum of Bartók et al.,
doi:10.1103/PhysRevB.87.184115). The beam (Z) blurs: the part of each that a turn about Z leaves alone is kept apart.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.special import lpmv

from custom_transforms.units import as_voxel_size_zyx

__all__ = ["DESCRIPTORS", "describe_particles"]

STEPS = 12  # samples along a particle's diameter, which a crop reaches from the center in all directions
SHELLS = 6
AT_ONCE = 64  # particles whose crops are in memory
DEGREES = 5  # of the spherical harmonics: 0 ... 4
_PAIRS = np.triu_indices(SHELLS)


def _names() -> tuple[str, ...]:
    """What the numbers are called, in their order."""
    pairs = [f"{a}{b}" for a, b in zip(*_PAIRS, strict=True)]
    names = []
    for part in ("density", "mask"):
        names += [f"{part}_mean_{shell}" for shell in range(SHELLS)]
        names += [f"{part}_power_{degree}_{pair}" for degree in range(1, DEGREES) for pair in pairs]
        names += [f"{part}_beam_{degree}_{shell}" for degree in range(1, DEGREES) for shell in range(SHELLS)]
    names += [f"others_mean_{shell}" for shell in range(SHELLS)]
    return (*names, "width_short", "width_middle", "width_long", "width_beam", "offset", "volume", "score")


DESCRIPTORS = _names()


def describe_particles(
    image: Any, labels: Any, table: pd.DataFrame, voxel_size_zyx: np.ndarray, particle_diameter: float
) -> np.ndarray:
    """Describe the particles of a table.

    Parameters
    ----------
    image : array-like, shape (Z, Y, X)
        The tomogram as the networks see it, protein bright; only sliced, so it may be larger than memory.
    labels : array-like, shape (Z, Y, X), int
        Instances; only sliced.
    table : DataFrame
        ``label``, ``z_vox``, ``y_vox``, ``x_vox``, ``volume_angstrom3`` and ``score``. A particle may have label 0.
    voxel_size_zyx : ndarray, shape (3,)
        Å.
    particle_diameter : float
        Å; all lengths are measured in it, so tomograms of other voxel sizes give nearly the same numbers.

    Returns
    -------
    ndarray, shape (n, len(DESCRIPTORS)), float64
        Finite. Beyond a face of the volume its outermost voxels go on.
    """
    sizes = as_voxel_size_zyx(voxel_size_zyx)
    spacing = particle_diameter / STEPS / sizes  # of the samples, in voxels
    found = np.zeros((len(table), len(DESCRIPTORS)))
    scale = _contrast(image, spacing) if len(table) else 1.0
    centers = table[["z_vox", "y_vox", "x_vox"]].to_numpy(float)
    own = table["label"].to_numpy(np.int64)
    for rows in (np.arange(n, min(n + AT_ONCE, len(table))) for n in range(0, len(table), AT_ONCE)):
        density = np.stack([_crop(image, centers[row], spacing, blurred=True) for row in rows]) / scale
        numbers = np.stack([_crop(labels, centers[row], spacing, blurred=False) for row in rows])
        mask = (numbers == own[rows, None]) & (own[rows, None] > 0)
        parts = [_invariants(density), _invariants(mask), _coefficients((numbers > 0) & ~mask)[:, :, 0]]
        found[rows, :-2] = np.hstack([*parts, _shape(mask)])
    volumes = table["volume_angstrom3"].to_numpy(float) / particle_diameter**3
    found[:, -2] = np.cbrt(volumes)
    found[:, -1] = table["score"].to_numpy(float)
    return found


def _invariants(values: np.ndarray) -> np.ndarray:
    """Shell means, then of each degree the products of its shells and the squares of its part along the beam."""
    coefficients, first = _coefficients(values), 1
    products, beams = [coefficients[:, :, 0]], []
    for degree in range(1, DEGREES):
        block = coefficients[:, :, first : first + 2 * degree + 1]
        product = (block @ block.transpose(0, 2, 1))[:, *_PAIRS]
        products.append(np.sign(product) * np.sqrt(np.abs(product)))  # as lengths, whose spread is even
        beams.append(np.abs(block[:, :, 0]))
        first += 2 * degree + 1
    return np.hstack([*products, *beams])


def _coefficients(values: np.ndarray) -> np.ndarray:
    """Coefficients (n, SHELLS, DEGREES^2) of crops (n, samples)."""
    return (values.astype(np.float32) @ _basis().T).reshape(len(values), SHELLS, DEGREES**2).astype(np.float64)


@lru_cache(maxsize=1)
def _grid() -> np.ndarray:
    """Offsets (3, samples) z, y, x from the center, in particle diameters: a ball."""
    axis = np.arange(-STEPS, STEPS + 1) / STEPS
    cube = np.stack(np.meshgrid(axis, axis, axis, indexing="ij")).reshape(3, -1)
    return cube[:, _ball()]


@lru_cache(maxsize=1)
def _ball() -> np.ndarray:
    """Which samples of the cube (flat) lie in the ball, as numbers."""
    axis = np.arange(-STEPS, STEPS + 1)
    z, y, x = np.ix_(axis, axis, axis)
    return np.flatnonzero(z**2 + y**2 + x**2 <= STEPS**2)


@lru_cache(maxsize=1)
def _basis() -> np.ndarray:
    """Shells times real spherical harmonics (SHELLS * DEGREES^2, samples); of each degree first the part along Z."""
    z, y, x = _grid()
    radius = np.sqrt(z**2 + y**2 + x**2)
    cosine, turn = z / np.maximum(radius, 1e-9), np.arctan2(y, x)
    harmonics = []
    for degree in range(DEGREES):
        for order in range(degree + 1):
            norm = math.sqrt((2 * degree + 1) * math.factorial(degree - order) / math.factorial(degree + order))
            legendre = norm * lpmv(order, degree, cosine) * ((radius > 0) | (degree == 0))
            if order == 0:
                harmonics.append(legendre)
            else:
                harmonics += [math.sqrt(2) * legendre * wave(order * turn) for wave in (np.cos, np.sin)]
    rows = []
    for shell in range(SHELLS):
        weight = np.exp(-0.5 * ((radius - shell / SHELLS) * SHELLS / 0.6) ** 2)
        weight /= weight.sum()
        rows += [weight * harmonic for harmonic in harmonics]
    return np.stack(rows).astype(np.float32)


@lru_cache(maxsize=1)
def _products() -> np.ndarray:
    """1, z, y, x and their products (10, samples): what sums over a mask make its moments of."""
    z, y, x = _grid()
    return np.stack([np.ones_like(z), z, y, x, z * z, y * y, x * x, z * y, z * x, y * x]).astype(np.float32)


def _shape(masks: np.ndarray) -> np.ndarray:
    """Widths of masks (n, samples) along their axes, shortest first, and along Z; how far the middle is off center."""
    sums = (masks.astype(np.float32) @ _products().T).astype(np.float64)
    mean = sums[:, 1:] / np.maximum(sums[:, :1], 1)
    middle = mean[:, :3]
    moments = mean[:, [[3, 6, 7], [6, 4, 8], [7, 8, 5]]] - middle[:, :, None] * middle[:, None, :]
    widths = np.sqrt(np.maximum(np.linalg.eigvalsh(moments), 0))
    return np.column_stack([widths, np.sqrt(np.maximum(moments[:, 0, 0], 0)), np.linalg.norm(middle, axis=1)])


def _contrast(image: Any, spacing: np.ndarray) -> float:
    """Standard deviation of the tomogram as crops show it, from crops all over it."""
    shape = np.array(image.shape)
    places = np.stack(np.meshgrid(*[(np.arange(4) + 0.5) / 4 * side for side in shape], indexing="ij"))
    crops = [_crop(image, center, spacing, blurred=True) for center in places.reshape(3, -1).T]
    return float(np.std(crops)) or 1.0


def _crop(volume: Any, center: np.ndarray, spacing: np.ndarray, *, blurred: bool) -> np.ndarray:
    """Samples around a center: blurred to their spacing and interpolated, or those of the nearest voxel.

    Samples stand on a lattice, so each axis is blurred and interpolated by one small matrix, and the ball cut last.
    """
    shape = np.array(volume.shape)
    sigma = np.sqrt(np.maximum(spacing**2 - 1, 0)) * 0.4 if blurred else np.zeros(3)
    reach = np.ceil(STEPS * spacing + 4 * sigma).astype(int) + 1
    middle = np.rint(center).astype(int).clip(0, shape - 1)
    first, last = (middle - reach).clip(0, shape), (middle + reach + 1).clip(0, shape)
    window = np.asarray(volume[tuple(map(slice, first, last))])
    places = (center - first)[:, None] + np.arange(-STEPS, STEPS + 1) * spacing[:, None]
    if blurred:
        z, y, x = (_sampling(*axis) for axis in zip(places, sigma, window.shape, strict=True))
        rows = (z @ window.reshape(len(window), -1).astype(np.float32)).reshape(len(z), *window.shape[1:])
        return (y @ (rows @ x.T)).ravel()[_ball()]
    nearest = np.floor(places + 0.5).astype(np.int64)
    side = np.array(window.shape)[:, None]
    cube = window[np.ix_(*nearest.clip(0, side - 1))]
    for axis, inside in enumerate((nearest >= 0) & (nearest < side)):
        if not inside.all():
            cube[(slice(None),) * axis + (~inside,)] = 0
    return cube.ravel()[_ball()]


def _sampling(places: np.ndarray, sigma: float, length: int) -> np.ndarray:
    """Matrix (samples, length) that blurs and then interpolates along an axis whose ends go on."""
    low = np.clip(np.floor(places), 0, max(length - 2, 0)).astype(int)
    part, rows = np.clip(places - low, 0, 1)[:, None], np.arange(length)
    matrix = (1 - part) * (rows == low[:, None]) + part * (rows == low[:, None] + 1)
    if sigma > 0:
        matrix = matrix @ ndimage.gaussian_filter1d(np.eye(length), sigma, axis=0, mode="nearest")
    return matrix.astype(np.float32)
