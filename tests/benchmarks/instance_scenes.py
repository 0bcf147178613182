"""Two maps as imperfect networks give them, for timing post-processing: small periodic scenes, tiled to any size."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

VOXEL_SIZE = 10.0  # Å
DIAMETER = 175.0  # Å
TILE = (116, 116, 116)  # voxels; 4 x 8 x 8 of them make 464 x 928 x 928


def make_tile(percolating: bool, particles: int = 78, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Mask probability and center map of one periodic tile, both (116, 116, 116) float32.

    Spheres and shells of about 17 voxels, blurred, with noise, neighbours touching; about 14 % foreground.

    Parameters
    ----------
    percolating : bool
        Crowd the particles into sheets that join through the whole volume, so that the mask becomes one
        component; otherwise they are spread out and form many components, single ones and clusters.
    """
    rng = np.random.default_rng(seed)
    centers, radii = _place(rng, percolating, particles)
    truth = np.zeros(TILE, dtype=np.float32)
    center_map = np.zeros(TILE, dtype=np.float32)
    for k, (center, radius) in enumerate(zip(centers, radii, strict=True)):
        distance = np.sqrt(sum(_offsets(axis, center[axis]) ** 2 for axis in range(3)))
        truth[(distance <= radius) & ((distance > 0.55 * radius) | (k % 5 > 0))] = 1  # every fifth is hollow
        peak = rng.uniform(0.7, 1.0)
        np.maximum(center_map, peak * np.exp(-2 * (distance / radius) ** 2), out=center_map)
    blur = 2.0 if percolating else 1.0
    probability = ndimage.gaussian_filter(truth, blur, mode="wrap") + 0.15 * _noise(rng, 1.0)
    return (
        np.clip(probability, 0, 1).astype(np.float32),
        np.clip(center_map + 0.03 * _noise(rng, 2.0), 0, 1).astype(np.float32),
    )


def tile_maps(maps: tuple[np.ndarray, np.ndarray], shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Repeat the periodic maps to fill ``shape``."""
    tiled = []
    for volume in maps:
        result = np.empty(shape, dtype=np.float32)
        for z in range(0, shape[0], TILE[0]):
            part = np.tile(volume, (1, -(-shape[1] // TILE[1]), -(-shape[2] // TILE[2])))
            depth = min(TILE[0], shape[0] - z)
            result[z : z + depth] = part[:depth, : shape[1], : shape[2]]
        tiled.append(result)
    return tiled[0], tiled[1]


def _place(rng: np.random.Generator, percolating: bool, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    centers: list[np.ndarray] = []
    radii: list[float] = []
    for _ in range(200_000):
        center, radius = rng.uniform(0, TILE[0], 3), rng.uniform(7.5, 9.5)
        if percolating:  # two crossing sheets
            axis = rng.integers(2)
            center[axis] = rng.uniform(46, 70)
        gaps = np.abs(np.array(centers).reshape(-1, 3) - center)
        gaps = np.sqrt((np.minimum(gaps, TILE[0] - gaps) ** 2).sum(axis=1)) - np.array(radii) - radius
        if (gaps > 0.3).all():
            centers.append(center)
            radii.append(radius)
        if len(centers) == wanted:
            break
    return np.array(centers), np.array(radii)


def _offsets(axis: int, center: float) -> np.ndarray:
    offset = np.abs(np.arange(TILE[axis]) - center)
    shape = [1, 1, 1]
    shape[axis] = -1
    return np.minimum(offset, TILE[axis] - offset).reshape(shape)


def _noise(rng: np.random.Generator, sigma: float) -> np.ndarray:
    noise = ndimage.gaussian_filter(rng.normal(size=TILE), sigma, mode="wrap")
    return (noise / noise.std()).astype(np.float32)
