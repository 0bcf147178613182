"""One tomogram of `prepare`: particles to labels, and what happened on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from custom_transforms.units import angstrom_xyz_to_voxel_zyx, voxel_zyx_to_angstrom_xyz
from scripts.particles.csv_table import TABLE_COLUMNS
from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.orientations import relion_angles
from scripts.preparation.inputs import ShapeSpecs
from scripts.preparation.painting import (
    IGNORE,
    Painted,
    find_duplicates,
    ignore_shells,
    merge_duplicates,
    paint_instances,
    position_order,
)
from scripts.preparation.recenter import doubtful_moves, recenter, recenter_on
from scripts.preparation.volume import apply_numbers, measure_labels, number_components, number_ids

__all__ = ["LabelOptions", "Prepared", "label_particles", "labels_as_given"]

_LISTED = 50


@dataclass(frozen=True)
class LabelOptions:
    """How particles become labels; lengths in Å."""

    ignore_shell: float = 0.0
    merge_duplicates: bool = False
    recenter: float = 0.0


@dataclass
class Prepared:
    """Labels of one tomogram, its particle table, and a summary for JSON."""

    labels: np.ndarray  # (Z, Y, X) int16 or int32: -1 ignore, 0 background, 1..n
    table: pd.DataFrame
    summary: dict = field(default_factory=dict)


def label_particles(
    particles: ParticleList,
    specs: ShapeSpecs,
    size_zyx: Sequence[int],
    voxel_size_zyx: np.ndarray,
    options: LabelOptions,
    volume: np.ndarray | None = None,
    region: np.ndarray | None = None,
    detections: np.ndarray | None = None,
    progress: Callable[[int], None] | None = None,
) -> Prepared:
    """Paint the particles of one tomogram.

    Parameters
    ----------
    particles : ParticleList
        Å of the volume to be made.
    specs : ShapeSpecs
    size_zyx, voxel_size_zyx
        Of the volume to be made.
    options : LabelOptions
    volume : ndarray, shape (Z, Y, X), optional
        The tomogram; needed to recenter on the density.
    region : ndarray of bool, shape (Z, Y, X), optional
        Where absent labels are true negatives; elsewhere everything is ignored, except particles whose center
        lies in the region.
    detections : ndarray, shape (m, 3), optional
        Centers (x, y, z), Å, to recenter on instead.
    progress : callable, optional

    Raises
    ------
    ValueError
        For a class without a shape, missing orientations, or particles that cannot all fit into the volume.
    """
    shapes = specs.shapes(voxel_size_zyx)
    particles = particles.select(position_order(particles))
    summary: dict = {"particles_in_list": len(particles)}
    radius = _radii(particles, shapes)
    _check_fits(radius, size_zyx, voxel_size_zyx)
    moves = np.zeros((len(particles), 3))
    if options.recenter > 0:
        if detections is not None:
            particles, moves = recenter_on(particles, detections, options.recenter)
        elif volume is not None:
            particles, moves = recenter(particles, volume, voxel_size_zyx, radius, options.recenter)
            summary["doubt"] = doubtful_moves(moves, options.recenter)
        else:
            raise ValueError("--recenter needs the tomogram, not only its shape.")
        summary["recentered"] = _move_summary(moves)
    pairs = find_duplicates(particles, radius)
    summary["duplicates"] = _pair_summary(particles, pairs)
    if options.merge_duplicates and len(pairs):
        keep = merge_duplicates(particles, pairs)
        particles, moves = particles.select(keep), moves[keep]
        summary["duplicates"]["removed"] = int((~keep).sum())
    painted = paint_instances(particles, shapes, size_zyx, voxel_size_zyx, progress)
    moves = moves[position_order(particles)]
    if region is not None:
        summary["outside_region"] = _apply_region(painted, region, voxel_size_zyx)
    ignore_shells(painted.labels, options.ignore_shell, voxel_size_zyx)
    table = _table(painted, voxel_size_zyx, moves if options.recenter > 0 else None)
    summary.update(_paint_summary(painted, table))
    return Prepared(painted.labels, table, summary)


def labels_as_given(
    labels: np.ndarray, voxel_size_zyx: np.ndarray, region: np.ndarray | None, ignore_shell: float
) -> Prepared:
    """Take an existing label volume (Z, Y, X) as it is: ids become 1..n in their order, centers are centroids.

    A binary mask is split into its connected components. As in `label_particles`, particles with their center outside
    the region are ignored. Beside the result (2 bytes per voxel up to 32,767 particles) little memory is needed.
    """
    given = np.asarray(labels)
    labelled, count = number_ids(given)
    summary: dict = {"labels_in_file": count}
    if count == 1:
        del labelled  # a mask may be as large as the tomogram: not twice
        labelled, count = number_components(given)
        summary["note"] = f"the label volume is a mask; its {count} connected components are the particles"
    volumes, centers, touches = measure_labels(labelled, count)
    table = _empty_table(count)
    table["label"] = np.arange(1, count + 1)
    if region is not None:
        inside = _center_inside(centers, region)
        table["label"] = _ignore_outside(labelled, table["label"].to_numpy(), inside, region)
        table.loc[~inside, "dropped_by"] = "outside_region"
        volumes = np.where(inside, volumes, 0)
        summary["outside_region"] = int((~inside).sum())
    ignore_shells(labelled, ignore_shell, voxel_size_zyx)
    _fill_positions(table, voxel_zyx_to_angstrom_xyz(centers, voxel_size_zyx), voxel_size_zyx)
    table["volume_vox"] = volumes
    table["volume_angstrom3"] = (volumes * voxel_size_zyx.prod()).round(1)
    table["touches_border"] = touches
    kept = int((table["label"] > 0).sum())
    summary.update(particles=kept, by_class=_by_class(table), ignored_fraction=_ignored(labelled))
    return Prepared(labelled, table, summary)


def _radii(particles: ParticleList, shapes) -> np.ndarray:
    known = {name: shapes.get(name, shapes.get("*", shapes.get(""))) for name in set(map(str, particles.class_name))}
    missing = sorted(name for name, shape in known.items() if shape is None)
    if missing:
        raise ValueError(
            f"class {missing[0]!r} of the list has no shape; shapes are given for {', '.join(map(repr, shapes))}. "
            "Add it to the shapes file, or '*' for all other classes."
        )
    radius = {name: shape.radius_angstrom for name, shape in known.items()}
    return np.array([radius[str(name)] for name in particles.class_name], dtype=float)


def _check_fits(radius: np.ndarray, size_zyx: Sequence[int], voxel_size_zyx: np.ndarray) -> None:
    needed, there = float((4 / 3 * np.pi * radius**3).sum()), float(np.prod(size_zyx) * np.prod(voxel_size_zyx))
    if needed > there:
        raise ValueError(
            f"the {len(radius):,} particles of the list would fill the tomogram {needed / there:.1f} times. "
            "Check the voxel size, the shape's radius, and whether the list is of this tomogram."
        )


def _apply_region(painted: Painted, region: np.ndarray, voxel_size_zyx: np.ndarray) -> int:
    """Ignore all outside the region but the particles with their center in it; how many particles that ignores."""
    centers = angstrom_xyz_to_voxel_zyx(painted.centroids_xyz_angstrom, voxel_size_zyx)
    inside = ~painted.outside
    inside[inside] = _center_inside(centers[inside], region)
    lost = (painted.label > 0) & ~inside
    painted.label = _ignore_outside(painted.labels, painted.label, inside, region)
    painted.dropped_by[lost] = "outside_region"
    painted.volume_voxels = np.where(painted.label > 0, painted.volume_voxels, 0)
    return int(lost.sum())


def _center_inside(centers_zyx_vox: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Which centers, shape (n, 3), have their nearest voxel in the region; a bool array, shape (n,)."""
    nearest = np.round(centers_zyx_vox).astype(int)
    return region[tuple(np.clip(nearest, 0, np.array(region.shape) - 1).T)]


def _ignore_outside(labels: np.ndarray, label: np.ndarray, inside: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Ignore, in place, the particles that are not inside and the background outside the region.

    Returns the new ``label`` of each particle: 1..m in the order of the old ones, 0 for one that is ignored.
    """
    numbers = np.full(int(label.max(initial=0)) + 1, IGNORE, dtype=labels.dtype)
    kept = np.unique(label[(label > 0) & inside])
    numbers[kept] = np.arange(1, len(kept) + 1)
    apply_numbers(labels, numbers)
    for plane, allowed in zip(labels, region, strict=True):
        plane[~allowed & (plane == 0)] = IGNORE
    return np.where((label > 0) & inside, numbers[label], 0).astype(int)


def _table(painted: Painted, voxel_size_zyx: np.ndarray, moves: np.ndarray | None) -> pd.DataFrame:
    """One row per particle of the list; those not in the volume have label 0 and a reason in dropped_by."""
    particles = painted.particles
    table = _empty_table(len(particles))
    table["label"] = painted.label
    table["class"] = particles.class_name
    _fill_positions(table, painted.centroids_xyz_angstrom, voxel_size_zyx)
    table["score"] = particles.score
    table["volume_vox"] = painted.volume_voxels
    table["volume_angstrom3"] = (painted.volume_voxels * voxel_size_zyx.prod()).round(1)
    table["touches_border"] = painted.clipped
    table["dropped_by"] = painted.dropped_by
    table["radius_angstrom"] = painted.radius_angstrom.round(3)
    for axis, column in enumerate(("reference_x_angstrom", "reference_y_angstrom", "reference_z_angstrom")):
        table[column] = particles.centers_xyz_angstrom[:, axis].round(6)
    if particles.rotation is not None:
        table[["angle_rot", "angle_tilt", "angle_psi"]] = relion_angles(particles.rotation).round(6)
    table["contested_vox"] = painted.contested
    if moves is not None:
        table["moved_angstrom"] = np.linalg.norm(moves, axis=1).round(3)
    return table


def _empty_table(count: int) -> pd.DataFrame:
    table = pd.DataFrame({column: [""] * count for column in TABLE_COLUMNS})
    table["particle_id"] = np.arange(1, count + 1)
    return table


def _fill_positions(table: pd.DataFrame, centers_xyz_angstrom: np.ndarray, voxel_size_zyx: np.ndarray) -> None:
    for axis, name in enumerate("xyz"):
        table[f"{name}_angstrom"] = centers_xyz_angstrom[:, axis].round(6)
        table[f"{name}_vox"] = (centers_xyz_angstrom[:, axis] / voxel_size_zyx[2 - axis]).round(6)


def _paint_summary(painted: Painted, table: pd.DataFrame) -> dict:
    labelled = painted.label > 0
    return {
        "particles": int(labelled.sum()),
        "by_class": _by_class(table),
        "contested_voxels": int(painted.contested.sum()),
        "clipped": _listed(table, painted.clipped),
        "outside": _listed(table, painted.outside),
        "hidden": _listed(table, np.isin(painted.dropped_by, ("hidden", "no_voxel"))),
        "ignored_fraction": _ignored(painted.labels),
        "occupancy": round(float(painted.volume_voxels.sum() / painted.labels.size), 6),
    }


def _by_class(table: pd.DataFrame) -> dict:
    """Count and median volume (Å^3) by class, of the particles that carry a label."""
    kept = table[table["label"].astype(int) > 0]
    return {
        str(name): {"count": len(group), "median_volume_angstrom3": float(group["volume_angstrom3"].median())}
        for name, group in kept.groupby("class", sort=True)
    }


def _listed(table: pd.DataFrame, chosen: np.ndarray) -> dict:
    ids = table["particle_id"].to_numpy()[chosen].tolist()
    return {"count": len(ids), "particle_ids": ids[:_LISTED]}


def _move_summary(moves: np.ndarray) -> dict:
    length = np.linalg.norm(moves, axis=1) if len(moves) else np.zeros(1)
    return {"mean_angstrom": round(float(length.mean()), 3), "max_angstrom": round(float(length.max()), 3)}


def _pair_summary(particles: ParticleList, pairs: np.ndarray) -> dict:
    listed = [particles.centers_xyz_angstrom[pair].round(2).tolist() for pair in pairs[:_LISTED]]
    return {"pairs": len(pairs), "removed": 0, "positions_xyz_angstrom": listed}


def _ignored(labels: np.ndarray) -> float:
    return round(sum(int((plane < 0).sum()) for plane in labels) / labels.size, 6)
