"""Give every mask voxel to a particle: the seeds' watershed, nearest seed, or split."""

from __future__ import annotations

import numpy as np
from numba import njit

from custom_transforms.labelling.components import find_components, paint_runs
from custom_transforms.labelling.flood import Ball, flood_all, nearest_all, touched_components
from custom_transforms.units import as_voxel_size_zyx
from custom_transforms.volumes.parallel import as_float_volume, run_parallel, slab_bounds, squared_axis_weights

__all__ = ["METHODS", "assign_instances", "mark_labels"]

METHODS = ("watershed", "nearest", "split")


def assign_instances(
    mask: np.ndarray,
    center_map: np.ndarray,
    peaks_zyx: np.ndarray,
    *,
    method: str = "watershed",
    radius_max: float,
    voxel_size_zyx: np.ndarray,
    require_seed: bool = False,
    min_size_voxels: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Give every mask voxel to the particle of a seed, or to a particle without one.

    Everything is joined by faces (6 neighbours). The *ball* of a seed holds the voxels whose center is at
    most ``radius_max`` away from the seed's voxel. The *level* of a voxel is its center map ``c`` in 256 steps,
    ``floor(clip(c, 0, 1) * 255 + 0.5)`` in float32; NaN is level 0.

    **Where a seed floods.** A path of a seed starts at its voxel and stays in its ball. A seed inside the
    mask moves through mask voxels only. A seed outside the mask (a hollow particle) first moves through its
    *interior*: background voxels whose level is at least 1 and at least `INTERIOR_FRACTION` (0.15) of the
    seed's level. From there it steps into the mask, and once in the mask it never leaves it again.
    It owns mask voxels only, of every component that its interior touches (a shell may be broken).

    **watershed.** The cost of a voxel for a seed is the least, over the seed's paths to it, of the largest
    ``255 - level`` on the path, both ends included; infinite without a path. A voxel goes to the seed with
    the smallest (cost, squared distance, z, y, x of the seed).

    **nearest.** A voxel goes to the seed with the smallest (squared distance, z, y, x) among those in whose
    ball it lies and that own its component: the seed's own, or those that its interior touches.

    **split.** Like nearest in components with two or more seeds. A component with one seed is that
    particle as a whole, ``radius_max`` or not (the original's `check_center`).

    **The rest.** Mask voxels without a seed form particles of their own, one per connected piece: whole
    components without a seed, and what lies beyond every ball. Pieces below ``min_size_voxels`` are specks and
    become background, as they do in `mask_from_probability`. With ``require_seed`` all of the rest does.

    The result depends on the maps near a voxel only, never on blocks, order or threads.

    Parameters
    ----------
    mask : ndarray, shape (Z, Y, X), bool
        Foreground of `mask_from_probability`.
    center_map : ndarray, shape (Z, Y, X), float
        Center map, 0..1.
    peaks_zyx : ndarray, shape (n, 3), int
        Seeds, any order, no two at one voxel. ``n`` may be 0.
    method : {"watershed", "nearest", "split"}
    radius_max : float
        R_max in Å, the largest particle radius.
    voxel_size_zyx : ndarray, shape (3,)
        Å per voxel along Z, Y, X.
    require_seed : bool
        Drop what no seed owns.
    min_size_voxels : float
        Smallest piece without a seed that is a particle; particles with a seed are left to `filter_particles`.

    Returns
    -------
    labels : ndarray, shape (Z, Y, X), int32
        0 background, then 1..n without gaps: particles with a seed in the order of the seeds' z, y, x, then
        those without one in the raster order of their first voxels.
    seed_labels : ndarray, shape (n,), int64
        The label of each seed, in the order of ``peaks_zyx``; 0 if it owns no voxel.

    Raises
    ------
    ValueError
        For an unknown method, shapes that differ, seeds outside the volume, or a radius not above 0.

    Examples
    --------
    >>> mask = np.ones((1, 2, 6), bool)
    >>> center_map = np.array([[[0.2, 0.9, 0.4, 0.1, 0.8, 0.3]] * 2])
    >>> labels, seed_labels = assign_instances(
    ...     mask, center_map, np.array([[0, 0, 4], [0, 0, 1]]), radius_max=30.0, voxel_size_zyx=np.full(3, 10.0)
    ... )
    >>> labels[0, 0], seed_labels
    (array([1, 1, 1, 2, 2, 2], dtype=int32), array([2, 1]))
    """
    values = as_float_volume(center_map, "center_map")
    foreground = np.ascontiguousarray(mask, dtype=bool)
    peaks = np.asarray(peaks_zyx, dtype=np.int64).reshape(-1, 3)
    _check(foreground, values, peaks, method, radius_max)
    weights, unit = squared_axis_weights(as_voxel_size_zyx(voxel_size_zyx))
    ball = Ball(radius_max / unit, weights, foreground.shape)
    order = np.lexsort(peaks.T[::-1])
    ordered = np.ascontiguousarray(peaks[order])
    if method == "watershed":
        owner, scratch = flood_all(foreground, values, ordered, ball)
    else:
        owner = _nearest(foreground, values, ordered, ball, whole_if_alone=method == "split")
        scratch = np.empty(owner.shape, dtype=np.uint8)
    labels_of_ordered = _number_owners(owner, len(peaks))
    if not require_seed:
        _label_rest(foreground, owner, scratch.view(bool), int(labels_of_ordered.max(initial=0)), min_size_voxels)
    seed_labels = np.empty(len(peaks), dtype=np.int64)
    seed_labels[order] = labels_of_ordered
    return owner, seed_labels


def _check(mask: np.ndarray, center_map: np.ndarray, peaks: np.ndarray, method: str, radius_max: float) -> None:
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if mask.shape != center_map.shape:
        raise ValueError(f"mask and center_map: expected one shape, got {mask.shape} and {center_map.shape}")
    if not radius_max > 0:
        raise ValueError(f"radius_max: expected a number above 0 in Å, got {radius_max!r}")
    if len(peaks) and ((peaks < 0).any() or (peaks >= mask.shape).any()):
        raise ValueError(f"seeds: expected indices (z, y, x) inside the volume {mask.shape}, got one outside")


def _nearest(
    mask: np.ndarray, center_map: np.ndarray, peaks: np.ndarray, ball: Ball, *, whole_if_alone: bool
) -> np.ndarray:
    """Owners for `nearest`, and with ``whole_if_alone`` for `split`."""
    runs = find_components(mask)
    allowed = [touched_components(mask, center_map, runs, peak, ball) for peak in peaks]
    if not whole_if_alone or not allowed:
        return nearest_all(runs, mask.shape, peaks, allowed, ball)
    seeds_in = np.bincount(np.concatenate(allowed).astype(np.int64), minlength=runs.sizes.size)
    owner = nearest_all(runs, mask.shape, peaks, [ids[seeds_in[ids] > 1] for ids in allowed], ball)
    owner_of = np.zeros(runs.sizes.size, dtype=np.int32)
    for seed, ids in enumerate(allowed):
        owner_of[ids] = seed + 1
    paint_runs(owner, runs, np.flatnonzero(seeds_in == 1), owner_of)
    return owner


def _number_owners(owner: np.ndarray, n_seeds: int) -> np.ndarray:
    """Replace 1 + seed by labels without gaps, in place. Returns the label of each seed (0: owns nothing)."""
    flat = owner.reshape(-1)
    pieces = [(a, b) for a, b in slab_bounds(flat.size, 1 << 24)]
    owns = np.zeros(n_seeds + 1, dtype=bool)
    run_parallel(lambda a, b: mark_labels(flat[a:b], owns), pieces)  # every thread writes the same True
    owns[0] = False
    table = np.where(owns, np.cumsum(owns), 0).astype(np.int32)
    if not owns[1:].all():
        run_parallel(lambda a, b: np.take(table, flat[a:b], out=flat[a:b], mode="clip"), pieces)
    return table[1:].astype(np.int64)


def _label_rest(
    mask: np.ndarray, labels: np.ndarray, scratch: np.ndarray, highest: int, min_size_voxels: float
) -> None:
    """Label the large enough pieces of the mask that have no label, in place, from ``highest + 1`` on."""

    def unlabelled(a: int, b: int) -> None:
        np.equal(labels[a:b], 0, out=scratch[a:b])
        scratch[a:b] &= mask[a:b]

    run_parallel(unlabelled, slab_bounds(len(mask)))
    runs = find_components(scratch)
    large = runs.sizes >= min_size_voxels
    paint_runs(labels, runs, np.flatnonzero(large), highest + np.cumsum(large))


@njit(nogil=True, cache=True)
def mark_labels(labels, seen):
    """Set ``seen[label]`` for every label (flat array) that occurs."""
    last = 0
    for label in labels:
        if label != last:
            seen[label] = True
            last = label
