"""Stacked, curved bilayers and the complexes that sit in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from scripts.simulate.phantoms import uniform

__all__ = ["Membranes", "bilayer_profile", "draw_membranes", "random_site", "rotation_to"]


@dataclass
class Membranes:
    """Bilayers in the volume.

    Attributes
    ----------
    density : ndarray, shape (Z, Y, X), float32
    sheet : ndarray, shape (Z, Y, X), int16
        Number of the bilayer a voxel lies in, from 1; 0 elsewhere.
    middles_zyx : ndarray, shape (n, 3), float
        Points on the middle surfaces, about one per square voxel.
    normals_zyx : ndarray, shape (n, 3), float
        Unit normals there; all sheets of a stack agree on the side.
    sheets : ndarray, shape (n,), int
        The sheet each point belongs to.
    """

    density: np.ndarray
    sheet: np.ndarray
    middles_zyx: np.ndarray
    normals_zyx: np.ndarray
    sheets: np.ndarray


def draw_membranes(
    shape_zyx: tuple[int, int, int], slab: tuple[int, int], settings: dict, voxel_size: float, rng: np.random.Generator
) -> Membranes | None:
    """Draw a stack of bilayers, seen roughly edge-on as in thylakoids.

    The sheets are level sets of one smooth function, a tilted plane plus a random relief, so they follow each
    other's bends and never meet.

    Parameters
    ----------
    shape_zyx : tuple of 3 int
    slab : tuple of 2 int
        First and last-but-one z index of the ice.
    settings : dict
        The scene's ``membranes``.
    voxel_size : float
        Å per voxel.
    rng : numpy Generator

    Returns
    -------
    Membranes or None
        None where the scene asks for no sheets.
    """
    low, high = settings["sheets"]
    count = int(rng.integers(low, high + 1))
    if count == 0:
        return None
    height = _height(shape_zyx, settings, voxel_size, rng)
    slope = np.sqrt(sum(g.astype(np.float32) ** 2 for g in np.gradient(height)))
    gaps = np.array([uniform(settings["spacing"], rng) for _ in range(count)]) / voxel_size
    levels = np.cumsum(gaps) - gaps.sum() / 2 + rng.uniform(-0.15, 0.15) * min(shape_zyx[1:])
    thickness, value = uniform(settings["thickness"], rng) / voxel_size, uniform(settings["density"], rng)
    density = np.zeros(shape_zyx, np.float32)
    sheet = np.zeros(shape_zyx, np.int16)
    middles, normals, numbers = [], [], []
    for number, level in enumerate(levels, start=1):
        near = np.nonzero(np.abs(height - level) < (thickness / 2 + 1) * slope)
        distance = (height[near] - level) / slope[near]
        density[near] = np.maximum(density[near], value * bilayer_profile(distance, thickness))
        sheet[tuple(axis[np.abs(distance) < thickness / 2] for axis in near)] = number
        on = np.abs(distance) < 0.5
        points = np.stack([axis[on] for axis in near], axis=1)
        normal = _normals(height, points)
        middles.append(points - distance[on, None] * normal)
        normals.append(normal)
        numbers.append(np.full(len(points), number))
    density[: slab[0]] = density[slab[1] :] = 0
    sheet[: slab[0]] = sheet[slab[1] :] = 0
    where, which, what = np.concatenate(middles), np.concatenate(normals), np.concatenate(numbers)
    in_ice = (where[:, 0] >= slab[0]) & (where[:, 0] < slab[1])
    return Membranes(density, sheet, where[in_ice], which[in_ice], what[in_ice])


def bilayer_profile(distance: np.ndarray, thickness: float) -> np.ndarray:
    """Density across a bilayer: two head-group layers and a weak middle.

    Parameters
    ----------
    distance : ndarray
        From the middle surface, in voxels.
    thickness : float
        From head group to head group, in voxels.

    Returns
    -------
    ndarray
        1 in the heads, 0.35 between the tails, 0 outside; edges are a voxel soft.
    """
    across = np.abs(distance)
    whole = np.clip(thickness / 2 - across + 0.5, 0, 1)
    tails = np.clip(thickness * 0.2 - across + 0.5, 0, 1)
    return whole - 0.65 * tails


def rotation_to(direction_xyz: np.ndarray, spin: float) -> Rotation:
    """A rotation that takes +z to a direction, after a turn by ``spin`` radians about z.

    Examples
    --------
    >>> rotation_to(np.array([1.0, 0.0, 0.0]), 0.3).apply([0, 0, 1]).round(6).tolist()
    [1.0, 0.0, 0.0]
    """
    x, y, z = direction_xyz / np.linalg.norm(direction_xyz)
    return Rotation.from_euler("ZYZ", [np.arctan2(y, x), np.arccos(np.clip(z, -1, 1)), spin])


def _height(shape_zyx: tuple[int, int, int], settings: dict, voxel_size: float, rng: np.random.Generator) -> np.ndarray:
    """The smooth function whose level sets are the sheets, in voxels; it falls by about 1 per voxel."""
    tilt = np.deg2rad(uniform(settings["tilt"], rng))
    azimuth = rng.uniform(0, 2 * np.pi)
    direction = np.array([np.sin(tilt), np.cos(tilt) * np.sin(azimuth), np.cos(tilt) * np.cos(azimuth)])
    axes = [(np.arange(n) - (n - 1) / 2) * d for n, d in zip(shape_zyx, direction, strict=True)]
    plane = axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :]
    length = uniform(settings["bend_length"], rng) / voxel_size
    bend = uniform(settings["bend"], rng) / voxel_size
    coarse = max(int(length / 4), 1)  # the relief is smooth: a coarse grid holds it
    margin = 12
    small = gaussian_filter(
        rng.normal(size=[n // coarse + 2 * margin for n in shape_zyx]), length / coarse, mode="wrap"
    )
    small = (small - small.mean()) / small.std()
    index = np.meshgrid(*[margin + np.arange(n) / coarse for n in shape_zyx], indexing="ij", sparse=True)
    relief = map_coordinates(small, np.broadcast_arrays(*index), order=3)
    # steeper than 0.7 the sheets would fold
    relief *= min(bend, 0.7 / max(max(np.abs(g).max() for g in np.gradient(relief)), 1e-9))
    return (plane + relief).astype(np.float32)


def _normals(height: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Unit gradients of the height at voxels, shape (n, 3) in (Z, Y, X)."""
    slopes = []
    for axis, size in enumerate(height.shape):
        after, before = points.copy(), points.copy()
        after[:, axis] = np.minimum(after[:, axis] + 1, size - 1)
        before[:, axis] = np.maximum(before[:, axis] - 1, 0)
        steps = after[:, axis] - before[:, axis]
        slopes.append((height[tuple(after.T)] - height[tuple(before.T)]) / steps)
    normal = np.stack(slopes, axis=1)
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def random_site(membranes: Membranes, sides: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
    """Draw a point of a bilayer, the outward normal there (both Z, Y, X) and the sheet's number.

    ``sides``: "one" keeps the stack's common side, "alternate" turns every other sheet around (as the two
    membranes of a thylakoid face each other), "both" turns at random.
    """
    number = int(rng.integers(len(membranes.sheets)))
    sheet = int(membranes.sheets[number])
    turned = {"one": False, "alternate": sheet % 2 == 1, "both": rng.random() < 0.5}[sides]
    normal = membranes.normals_zyx[number]
    return membranes.middles_zyx[number], -normal if turned else normal, sheet
