"""One side of a comparison in memory: a label volume, a list of particles, or both."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from custom_transforms.units import angstrom_xyz_to_voxel_zyx, as_voxel_size_zyx, voxel_zyx_to_angstrom_xyz
from custom_transforms.volumes.checks import metadata_warnings
from custom_transforms.volumes.read import read_tomogram
from scripts.matching.centers import filled_centers
from scripts.particles.particle_list import ParticleList
from scripts.records.detection import read_detection
from scripts.sources.detections import detections_below
from scripts.sources.labels_and_lists import SideFiles, find_sides, is_one_file
from scripts.sources.named import listed
from scripts.sources.particle_lists import read_particles

__all__ = ["Points", "Side", "in_classes_of", "label_at", "pair_sides", "points_of", "read_side", "true_radii"]


@dataclass(frozen=True)
class Side:
    """What is known of one tomogram on one side.

    ``volume`` (Z, Y, X) labels and ``particles``: one of them may be None. ``voxel_size_zyx`` is None if unknown.
    """

    volume: np.ndarray | None = None
    particles: ParticleList | None = None
    voxel_size_zyx: np.ndarray | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Points:
    """One row per particle: centers in Å (n, 3) as x, y, z; label (0 unknown); class ("" unknown); score (nan unknown);
    diameter_angstrom (nan unknown); whether it touches the border."""

    centers_xyz_angstrom: np.ndarray
    label: np.ndarray
    class_name: np.ndarray
    score: np.ndarray
    diameter_angstrom: np.ndarray
    touches_border: np.ndarray

    def __len__(self) -> int:
        return len(self.label)


def pair_sides(
    predicted: str | Path, true: str | Path, formats: Sequence[str | None] = (None, None)
) -> tuple[list[tuple[str, SideFiles, SideFiles]], dict[str, list[str]]]:
    """Match two sides by tomogram.

    One tomogram on each side is one pair whatever the names, if each was given as a file; else names decide.

    Parameters
    ----------
    predicted, true : path
        As in `find_sides`.
    formats : sequence of 2 str or None
        Of the lists of the two sides.

    Returns
    -------
    pairs : list of (name, predicted, true), sorted by name
    unmatched : dict
        Names found on one side only: ``only_predicted`` and ``only_true``.
    """
    left, right = find_sides(predicted, "predicted", formats[0]), find_sides(true, "true", formats[1])
    if len(left) == len(right) == 1 and is_one_file(predicted) and is_one_file(true):
        (name, first), (_, second) = *left.items(), *right.items()
        return [(name, first, second)], {"only_predicted": [], "only_true": []}
    common = sorted(left.keys() & right.keys())
    if not common:
        raise ValueError(
            f"evaluate: expected the same tomogram names on both sides; predicted has {listed(sorted(left))}, truth "
            f"has {listed(sorted(right))}. Rename the files, or give one file on each side."
        )
    unmatched = {"only_predicted": sorted(left.keys() - right.keys()), "only_true": sorted(right.keys() - left.keys())}
    return [(name, left[name], right[name]) for name in common], unmatched


def read_side(
    files: SideFiles, voxel_size: Any = None, other_voxel_size: np.ndarray | None = None, format: str | None = None
) -> Side:
    """Read the files of one side; what the readers warn of is kept in ``warnings`` and not issued.

    Parameters
    ----------
    files : SideFiles
    voxel_size : float or 3 floats (Z, Y, X), optional
        Å; replaces what the file says.
    other_voxel_size : ndarray, optional
        Of the other side, for a list that counts in voxels and has no volume beside it.
    format : str, optional
        Of the list; by default told by its content and ending.
    """
    volume, size, shape, notes = None, None, None, []
    if files.volume is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # they are in the metadata
            volume, metadata = read_tomogram(files.volume, voxel_size=voxel_size, check="labels")
        size, shape, notes = np.asarray(metadata["voxel_size_zyx"], float), volume.shape, metadata_warnings(metadata)
        if np.allclose(size, 1.0):  # what the reader gives to a file that has none
            size = other_voxel_size
    elif voxel_size is not None:
        size = as_voxel_size_zyx(voxel_size)
    particles = None
    if files.particles is not None:
        known = size if size is not None else other_voxel_size
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            particles = read_particles(files.particles, format, member=files.member, voxel_size=known, size_zyx=shape)
        notes += [str(one.message) for one in caught if issubclass(one.category, UserWarning)]
        if len(set(particles.tomogram)) > 1:
            raise ValueError(
                f"{files.particles}: expected the particles of one tomogram, got "
                f"{', '.join(sorted(set(particles.tomogram))[:10])}; give folders, or a list for each tomogram"
            )
    return Side(volume, particles, size, notes)


def in_classes_of(predicted: SideFiles, true: Side) -> Side:
    """The true side with the classes of the networks, where these merged some: the record of the detection says which.

    Without such a record the names stay as they are, and so do those of other particles.
    """
    file = predicted.particles or predicted.volume
    owners = [] if file is None else [run for run in detections_below(file.parent) if file.name.startswith(run.name)]
    records = [run.with_name(f"{run.name}.json") for run in owners]
    class_of = next((read_detection(record).class_of for record in records if record.is_file()), {})
    if true.particles is None or not class_of:
        return true
    names = [class_of.get(str(name), str(name)) for name in true.particles.class_name]
    return replace(true, particles=replace(true.particles, class_name=names))


def points_of(side: Side, voxel_size_zyx: np.ndarray | None, border: Mapping[int, bool] | None = None) -> Points:
    """The centers of a side: of its list if it has one, else of its filled instances.

    Parameters
    ----------
    side : Side
    voxel_size_zyx : ndarray, optional
        Å; needed for a volume.
    border : mapping of label to bool, optional
        Which particles of the volume touch a face of it; a list may say so itself in ``touches_border``.
    """
    border = border or {}
    if side.particles is None:
        if side.volume is None or voxel_size_zyx is None:
            raise ValueError(
                "evaluate: expected a label volume with its voxel size, or a list of particles, got neither"
            )
        found = filled_centers(side.volume, voxel_size_zyx)
        n = len(found.ids)
        return Points(
            voxel_zyx_to_angstrom_xyz(found.centers_zyx_vox, voxel_size_zyx),
            found.ids,
            np.full(n, "", dtype="<U1"),
            np.full(n, np.nan),
            found.diameters_angstrom,
            np.array([border.get(int(label), False) for label in found.ids], bool),
        )
    particles, extra = side.particles, side.particles.extra
    n = len(particles)
    label = _list_labels(side, particles, voxel_size_zyx)
    touches = np.array([border.get(int(i), False) for i in label], bool)
    if "touches_border" in extra:
        touches |= extra["touches_border"].astype(str).str.lower().isin(["true", "1", "1.0"]).to_numpy()
    return Points(
        particles.centers_xyz_angstrom,
        label,
        np.asarray(particles.class_name),
        np.asarray(particles.score, np.float64),
        _list_diameters(particles),
        touches,
    )


def label_at(centers_xyz_angstrom: np.ndarray, volume: np.ndarray, voxel_size_zyx: np.ndarray) -> np.ndarray:
    """Label under each center; 0 outside the volume."""
    index = np.rint(angstrom_xyz_to_voxel_zyx(centers_xyz_angstrom, voxel_size_zyx)).astype(np.int64)
    inside = ((index >= 0) & (index < np.asarray(volume.shape))).all(axis=1)
    label = np.zeros(len(index), np.int64)
    label[inside] = volume[tuple(index[inside].T)]
    return label


def _list_labels(side: Side, particles: ParticleList, voxel_size_zyx: np.ndarray | None) -> np.ndarray:
    """Which id of the volume each row is: what the column label says, else the id under its center.

    0 if unknown: no particle lies there, or another row is that one. Without a volume and a column, 1..n.
    """
    n = len(particles)
    has_column = "label" in particles.extra
    if not has_column and side.volume is None:
        return np.arange(1, n + 1)
    texts = particles.extra["label"] if has_column else [""] * n
    written = np.array([_number(text) for text in texts], np.float64).reshape(-1)
    label = np.nan_to_num(written).astype(np.int64)
    size = side.voxel_size_zyx if side.voxel_size_zyx is not None else voxel_size_zyx
    if side.volume is None or size is None:
        return label
    unknown = np.isnan(written)
    label[unknown] = np.maximum(label_at(particles.centers_xyz_angstrom[unknown], side.volume, size), 0)
    _, row, count = np.unique(label, return_inverse=True, return_counts=True)
    label[unknown & (count[row] > 1)] = 0
    return label


def _list_diameters(particles: ParticleList) -> np.ndarray:
    """From the radius, the column diameter_angstrom, or the sphere of equal volume_angstrom3; nan where unknown."""
    diameter = 2 * np.asarray(particles.radius_angstrom, np.float64)
    for column in ("diameter_angstrom", "volume_angstrom3"):
        if column in particles.extra:
            values = np.array([_number(text) for text in particles.extra[column]], np.float64).reshape(-1)
            values = values if column == "diameter_angstrom" else np.cbrt(values * 6 / np.pi)
            diameter = np.where(np.isnan(diameter) & (values > 0), values, diameter)
    return diameter


def _number(text: object) -> float:
    return float(str(text)) if str(text).strip() not in ("", "nan", "None", "<NA>") else float("nan")


def true_radii(
    true: Points, volume_diameters: Mapping[int, float], particle_diameter: float | Mapping[str, float] | None
) -> np.ndarray:
    """Radius of every true particle in Å.

    Its own, from the list; else that of the sphere of equal volume in the true volume; else of ``particle_diameter``
    (one number, or one for each class).
    """
    diameter = true.diameter_angstrom.copy()
    for i in np.flatnonzero(np.isnan(diameter)):
        given = particle_diameter
        if isinstance(given, Mapping):
            given = given.get(str(true.class_name[i]))
        diameter[i] = volume_diameters.get(int(true.label[i]), np.nan if given is None else float(given))
    if np.isnan(diameter).any():
        raise ValueError(
            f"evaluate: {int(np.isnan(diameter).sum())} of {len(true)} true particles have no radius or volume, so it "
            "is unknown how far a prediction may lie from them; give --particle_diameter (Å)"
        )
    return diameter / 2
