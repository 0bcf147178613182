"""Filaments and gold beads: what else lies in the ice, drawn into the density but never labelled."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from scripts.simulate.phantoms import Shells, uniform, unit_vector
from scripts.simulate.placement import Stage, render

__all__ = ["add_filaments", "add_gold"]


def add_filaments(stage: Stage, settings: dict, voxel_size: float, rng: np.random.Generator) -> int:
    """Draw flexible rods and tubes through the ice.

    Parameters
    ----------
    stage : Stage
        Changed in place: density and blocked voxels.
    settings : dict
        The scene's ``filaments``.
    voxel_size : float
        Å per voxel.
    rng : numpy Generator

    Returns
    -------
    int
        Filaments drawn.
    """
    low, high = settings["count"]
    count = int(rng.integers(low, high + 1))
    for _ in range(count):
        radius = uniform(settings["radius"], rng) / voxel_size
        path = _worm(stage, uniform(settings["persistence"], rng) / voxel_size, rng)
        hollow = rng.random() < settings["hollow_fraction"]
        _draw_tube(stage, path, radius, uniform(settings["density"], rng), hollow)
    return count


def add_gold(stage: Stage, settings: dict, voxel_size: float, rng: np.random.Generator) -> int:
    """Put dense beads on the two faces of the ice, where fiducials lie; returns how many."""
    low, high = settings["count"]
    count = int(rng.integers(low, high + 1))
    for _ in range(count):
        bead = Shells(uniform(settings["diameter"], rng) / 2, [], lumen=uniform(settings["density"], rng))
        patch = render(bead, Rotation.identity(), rng.uniform(-0.5, 0.5, 3), voxel_size)
        face = stage.slab[int(rng.integers(2))]
        middle = np.array([face, rng.integers(stage.shape_zyx[1]), rng.integers(stage.shape_zyx[2])])
        start = middle - np.round(patch.middle).astype(int)
        if stage.fits(patch, start):
            stage.put(patch, start)
    return count


def _worm(stage: Stage, persistence: float, rng: np.random.Generator) -> np.ndarray:
    """A worm-like chain through a random point of the slab, one point per half voxel, shape (n, 3)."""
    low, high = stage.slab
    step, length = 0.5, 2.0 * max(stage.shape_zyx)
    start = np.array([rng.uniform(low, high), *(rng.uniform(0, n) for n in stage.shape_zyx[1:])])
    halves = []
    heading = unit_vector(rng) * np.array([0.25, 1, 1])
    heading /= np.linalg.norm(heading)
    for sign in (1, -1):
        point, direction, points = start.copy(), sign * heading, []
        for _ in range(int(length / step / 2)):
            direction = direction + rng.normal(size=3) * np.sqrt(step / persistence)
            direction /= np.linalg.norm(direction)
            if not low <= point[0] + step * direction[0] < high:
                direction[0] *= -1  # stays in the ice
            point = point + step * direction
            points.append(point)
        halves.append(np.array(points))
    return np.concatenate([halves[1][::-1], start[None], halves[0]])


def _draw_tube(stage: Stage, path: np.ndarray, radius: float, density: float, hollow: bool) -> None:
    """Fill what lies within a radius (voxels) of a path; a hollow tube keeps its inner half free."""
    reach = radius + 1
    shape = np.asarray(stage.shape_zyx)
    near = path[((path > -reach) & (path < shape - 1 + reach)).all(1)]
    if not len(near):
        return
    low = np.maximum(np.floor(near.min(0) - reach), 0).astype(int)
    high = np.minimum(np.ceil(near.max(0) + reach) + 1, shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    coarse = np.zeros(high - low, bool)
    inside = np.clip(np.round(near).astype(int) - low, 0, np.array(coarse.shape) - 1)
    coarse[tuple(inside.T)] = True
    grown = _grow(coarse, int(np.ceil(reach)) + 1)
    voxels = np.argwhere(grown)
    distance, _ = cKDTree(near).query(voxels + low)
    value = np.clip(radius - distance + 0.5, 0, 1)
    if hollow:
        value -= np.clip(0.5 * radius - distance + 0.5, 0, 1)
    free = ~stage.blocked[box][tuple(voxels.T)]
    target = stage.density[box]
    target[tuple(voxels[free].T)] += density * value[free]
    solid = voxels[(distance < radius + stage.gap) & free]
    stage.blocked[box][tuple(solid.T)] = True


def _grow(mask: np.ndarray, radius: int) -> np.ndarray:
    """Voxels within a box of half side ``radius`` around a mask."""
    from scipy.ndimage import maximum_filter

    return maximum_filter(mask, size=2 * radius + 1)
