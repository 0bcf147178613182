"""One table row per particle: center, score, volume, neighbours, and why a particle was dropped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numba import njit
from scipy.spatial import cKDTree

from custom_transforms.units import as_voxel_size_zyx, voxel_zyx_to_angstrom_xyz
from custom_transforms.volumes.lazy import LabelVolume
from custom_transforms.volumes.parallel import as_float_volume, run_parallel, slab_bounds, thread_count

__all__ = [
    "PARTICLE_COLUMNS",
    "empty_particle_table",
    "filter_particles",
    "measure_particles",
    "sums_by_label",
    "table_from_sums",
]

PARTICLE_COLUMNS = {
    "particle_id": np.int64, "label": np.int64, "class": object,
    "x_vox": np.float64, "y_vox": np.float64, "z_vox": np.float64,
    "x_angstrom": np.float64, "y_angstrom": np.float64, "z_angstrom": np.float64,
    "score": np.float64, "volume_vox": np.int64, "volume_angstrom3": np.float64,
    "touches_border": np.bool_, "neighbors": np.int64, "dropped_by": object,
}  # fmt: skip

_PROBABILITY_UNIT = 2.0**-30  # probabilities are summed as whole numbers, so that no order of summing matters


def empty_particle_table() -> pd.DataFrame:
    """Return a particle table without rows: the right columns, order and types.

    Examples
    --------
    >>> len(empty_particle_table()), empty_particle_table().columns[0]
    (0, 'particle_id')
    """
    return pd.DataFrame({name: pd.Series([], dtype=kind) for name, kind in PARTICLE_COLUMNS.items()})


def measure_particles(
    labels: np.ndarray,
    probability: np.ndarray,
    seed_labels: np.ndarray,
    centers_zyx_vox: np.ndarray,
    heights: np.ndarray,
    *,
    voxel_size_zyx: np.ndarray,
    center_threshold: float,
    neighbor_distance: float,
) -> pd.DataFrame:
    """Make the particle table of an instance volume: every seed is a row, and every label without a seed.

    - center: the refined seed; without a seed, the centroid of the particle's voxels.
    - score, 0..1: refined height x mean mask probability of the voxels; without a seed, ``center_threshold``
      x mean mask probability; without voxels, 0.
    - neighbors: other particles with voxels whose centers are at most ``neighbor_distance`` away.
    - touches_border: whether a voxel lies on a face of the volume.
    - dropped_by: "no_mask" for a seed that owns no voxel (label 0, volume 0), else "".

    Parameters
    ----------
    labels : ndarray, shape (Z, Y, X), int32
        Instances 0..n of `assign_instances`.
    probability : ndarray, shape (Z, Y, X), float
        Mask probability, 0..1; NaN counts as 0.
    seed_labels : ndarray, shape (s,), int
        Label of each seed, 0 if it owns no voxel. Seeds sorted by z, y, x give ids in that order.
    centers_zyx_vox, heights : ndarray, shapes (s, 3) and (s,)
        Refined seeds.
    voxel_size_zyx : ndarray, shape (3,)
        Å per voxel along Z, Y, X.
    center_threshold : float
        Stands for the peak of a particle without a seed.
    neighbor_distance : float
        Å.

    Returns
    -------
    DataFrame
        The columns of `PARTICLE_COLUMNS`. ``particle_id`` is 1..n without gaps: the seeds in their order,
        then particles without a seed by label. No rows if there is nothing.
    """
    values = as_float_volume(probability, "probability")
    volume = np.ascontiguousarray(labels, dtype=np.int32)
    if values.shape != volume.shape:
        raise ValueError(f"labels and probability: expected one shape, got {volume.shape} and {values.shape}")
    return table_from_sums(
        sums_by_label(volume, values), seed_labels, centers_zyx_vox, heights, voxel_size_zyx=voxel_size_zyx,
        center_threshold=center_threshold, neighbor_distance=neighbor_distance,
    )  # fmt: skip


def table_from_sums(
    sums: np.ndarray,
    seed_labels: np.ndarray,
    centers_zyx_vox: np.ndarray,
    heights: np.ndarray,
    *,
    voxel_size_zyx: np.ndarray,
    center_threshold: float,
    neighbor_distance: float,
) -> pd.DataFrame:
    """Make the particle table from what `sums_by_label` counted; see `measure_particles`.

    Parameters
    ----------
    sums : ndarray, shape (n + 1, 6), int64
        Of labels 0..n; the row of label 0 is zero.
    seed_labels, centers_zyx_vox, heights, voxel_size_zyx, center_threshold, neighbor_distance
        As in `measure_particles`.
    """
    sizes = as_voxel_size_zyx(voxel_size_zyx)
    seeds = np.asarray(seed_labels, dtype=np.int64)
    seedless = np.setdiff1d(np.flatnonzero(sums[:, 0]), np.append(seeds, 0))
    label = np.concatenate([seeds, seedless])
    voxels = np.where(label > 0, sums[label, 0], 0)
    probability_sum = sums[label, 1] * _PROBABILITY_UNIT
    peak = np.concatenate([np.asarray(heights, dtype=np.float64), np.full(len(seedless), float(center_threshold))])
    centers = np.concatenate(
        [np.asarray(centers_zyx_vox, dtype=np.float64).reshape(-1, 3), sums[seedless, 2:5] / sums[seedless, 0:1]]
    )
    table = _table(label, centers, sizes)
    table["score"] = np.clip(peak, 0, 1) * np.where(voxels > 0, probability_sum / np.maximum(voxels, 1), 0.0)
    table["volume_vox"] = voxels
    table["volume_angstrom3"] = voxels * float(sizes.prod())
    table["touches_border"] = (sums[label, 5] > 0) & (voxels > 0)
    table["dropped_by"] = np.where(voxels > 0, "", "no_mask").astype(object)
    table["neighbors"] = _count_neighbors(table, voxels > 0, neighbor_distance)
    return table[list(PARTICLE_COLUMNS)].astype(PARTICLE_COLUMNS)


def check_neighbor_number(number: int) -> None:
    """Raise ValueError for a negative number."""
    if number < 0:
        raise ValueError(f"neighbor_number: expected 0 (off) or more, got {number!r}.")


def filter_particles(
    table: pd.DataFrame,
    labels: Any,
    *,
    min_size: float | np.ndarray = 0.0,
    neighbor_number: int = 0,
    neighbor_distance: float,
    in_place: bool = False,
) -> tuple[pd.DataFrame, Any]:
    """Drop particles that are too small or too lonely; they stay in the table with their reason.

    First size: ``volume_angstrom3 < min_size`` gives "size". Then neighbours, counted among what is left:
    fewer than ``neighbor_number`` within ``neighbor_distance`` gives "neighbors" (one round; the original's
    rule is 3 within 30 voxels). A particle that was dropped before keeps its first reason.

    Parameters
    ----------
    table : DataFrame
        Particle table of `measure_particles`; not changed.
    labels : ndarray or LabelVolume, shape (Z, Y, X), int32
        Its instance volume.
    min_size : float or ndarray, one per row
        Å^3.
    neighbor_number : int
        0 switches the neighbour filter off.
    neighbor_distance : float
        Å.
    in_place : bool
        Renumber ``labels`` itself instead of a copy: 1.6 GB less for a full-size volume.

    Returns
    -------
    table : DataFrame
        The same rows and ``particle_id``; dropped ones have label 0, labels of the others are 1..n without
        gaps in the same order. ``neighbors`` counts what the size filter left.
    labels : ndarray or LabelVolume, shape (Z, Y, X), int32
        Without the dropped particles. The input itself if nothing was dropped or with ``in_place``.

    Raises
    ------
    ValueError
        If ``neighbor_number`` is negative, or ``in_place`` is asked of labels that are not C-contiguous.
    """
    check_neighbor_number(neighbor_number)
    if in_place and isinstance(labels, np.ndarray) and not labels.flags.c_contiguous:
        raise ValueError(
            f"in_place: expected labels in one block of C order, got strides {labels.strides}. "
            "Give np.ascontiguousarray(labels), or leave in_place out."
        )
    filtered = table.copy()
    reason = filtered["dropped_by"].to_numpy(dtype=object).copy()
    reason[(reason == "") & (filtered["volume_angstrom3"].to_numpy() < min_size)] = "size"
    neighbors = _count_neighbors(filtered, reason == "", neighbor_distance)
    reason[(reason == "") & (neighbors < neighbor_number)] = "neighbors"
    old = filtered["label"].to_numpy()
    kept = np.sort(old[(reason == "") & (old > 0)])
    renumbered = np.zeros(int(old.max(initial=0)) + 1, dtype=np.int32)
    renumbered[kept] = np.arange(1, len(kept) + 1)
    filtered["label"] = np.where(reason == "", renumbered[old], 0).astype(np.int64)
    filtered["dropped_by"] = reason
    filtered["neighbors"] = neighbors
    return filtered.astype(PARTICLE_COLUMNS), _renumber(labels, renumbered, in_place)


def _table(label: np.ndarray, centers: np.ndarray, sizes: np.ndarray) -> pd.DataFrame:
    xyz_angstrom = voxel_zyx_to_angstrom_xyz(centers, sizes)
    columns: dict[str, object] = {"particle_id": np.arange(1, len(label) + 1), "label": label, "class": ""}
    for axis, name in enumerate("xyz"):
        columns[f"{name}_vox"] = centers[:, 2 - axis]
        columns[f"{name}_angstrom"] = xyz_angstrom[:, axis]
    return pd.DataFrame(columns, index=range(len(label)))


def _count_neighbors(table: pd.DataFrame, counted: np.ndarray, distance: float) -> np.ndarray:
    """Other counted particles within ``distance`` Å of every particle."""
    points = table[["x_angstrom", "y_angstrom", "z_angstrom"]].to_numpy(dtype=np.float64)
    if not counted.any():
        return np.zeros(len(points), dtype=np.int64)
    found = cKDTree(points[counted]).query_ball_point(points, distance, return_length=True)
    return np.asarray(found, dtype=np.int64) - counted


def _renumber(labels: Any, renumbered: np.ndarray, in_place: bool) -> Any:
    if isinstance(labels, LabelVolume):
        return labels.renumbered(renumbered)
    if (renumbered == np.arange(len(renumbered))).all():
        return labels
    result = labels if in_place else np.empty(labels.shape, labels.dtype)
    labels = np.ascontiguousarray(labels)
    run_parallel(
        lambda a, b: _look_up(labels[a:b].reshape(-1), renumbered, result[a:b].reshape(-1)), slab_bounds(len(labels))
    )
    return result


def sums_by_label(labels: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Sum over the voxels of every label: the numbers that the particle table is made of.

    Parameters
    ----------
    labels : ndarray, shape (Z, Y, X), int32, C order
    probability : ndarray, shape (Z, Y, X), float32

    Returns
    -------
    ndarray, shape (n + 1, 6), int64
        Of labels 0..n: voxels, probability in units of 2^-30, z, y, x, voxels on a face. The row of label 0 is zero.
    """
    slabs = slab_bounds(len(labels), max(1, -(-len(labels) // thread_count())))
    highest = max(run_parallel(lambda a, b: int(labels[a:b].max()), slabs), default=0)
    sums = [np.zeros((highest + 1, 6), dtype=np.int64) for _ in slabs]
    run_parallel(lambda k, ab: _add_up(labels, probability, ab[0], ab[1], sums[k]), enumerate(slabs))
    return np.sum(sums, axis=0)


@njit(nogil=True, cache=True)
def _add_up(labels, probability, first, last, sums):
    nz, ny, nx = labels.shape
    for z in range(first, last):
        for y in range(ny):
            on_face = z == 0 or z == nz - 1 or y == 0 or y == ny - 1
            x = 0
            while x < nx:
                label = labels[z, y, x]
                if label <= 0:
                    x += 1
                    continue
                start = x
                total = 0
                while x < nx and labels[z, y, x] == label:
                    if probability[z, y, x] > 0:  # NaN counts as 0
                        total += int(np.float64(probability[z, y, x]) * 1073741824.0 + 0.5)
                    x += 1
                count = x - start
                row = sums[label]
                row[0] += count
                row[1] += total
                row[2] += count * z
                row[3] += count * y
                row[4] += count * (start + x - 1) // 2
                row[5] += count if on_face else (start == 0) + (x == nx)


@njit(nogil=True, cache=True)
def _look_up(labels, table, result):
    for k in range(labels.size):
        result[k] = table[labels[k]]
