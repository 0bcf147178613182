"""Which candidates the user's examples name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from custom_transforms.files.names import tomogram_base_name
from scripts.particles.particle_list import ParticleList
from scripts.preparation.inputs import TomogramInput
from scripts.preparation.lists import Lists
from scripts.preparation.volume import is_box, read_region
from scripts.sources.labels_and_lists import files_by_tomogram
from scripts.teach.candidates import Candidates

__all__ = ["OTHER", "UNANSWERED", "Examples", "match_examples", "named", "read_lists", "rest_of"]

OTHER = "other"  # class of counter-examples
UNANSWERED = "?"  # class of what was asked and is not answered
UNNAMED = "particle"


@dataclass
class Examples:
    """Class of each candidate, by tomogram: "" where the user has not said.

    Attributes
    ----------
    known : list of ndarray
        In the order of the candidates; names of classes, or `OTHER`.
    lost : list of str
        Where examples are that no candidate is near.
    """

    known: list[np.ndarray]
    lost: list[str] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """The classes of the examples, by name."""
        return sorted({str(name) for names in self.known for name in names} - {"", OTHER})


def read_lists(
    candidates: Sequence[Candidates], particles: str, format: str | None, binning: float | None, star: str | None
) -> tuple[list[ParticleList], list[str]]:
    """The list's particles in each tomogram, and what was assumed about it; see `Lists`."""
    names = [tomogram_base_name(one.name) for one in candidates]
    inputs = [
        TomogramInput(name, Path(one.meta["filename_or_obj"])) for name, one in zip(names, candidates, strict=True)
    ]
    lists = Lists(inputs, particles, {}, format, binning, star)
    found = []
    for one, candidate in zip(inputs, candidates, strict=True):
        found.append(lists.particles_of(one, candidate.run.shape_zyx, candidate.run.voxel_size_zyx))
    return found, lists.notes


def named(particles: ParticleList) -> np.ndarray:
    """Which rows are examples of a class, not counter-examples or questions without an answer; shape (n,), bool."""
    return np.array([str(name) not in (OTHER, UNANSWERED) for name in particles.class_name], dtype=bool)


def rest_of(candidates: Sequence[Candidates], lists: Sequence[ParticleList], complete: str) -> list[ParticleList]:
    """Counter-examples: what was found where the list names every particle of its classes, and no example is.

    Parameters
    ----------
    candidates, lists : sequences
        Of each tomogram; one without examples has no counter-examples.
    complete : str
        A mask file ("masks/{name}.mrc"), or a box z0:z1,y0:y1,x0:x1 in voxels, as of `read_region`.

    Raises
    ------
    FileNotFoundError, ValueError
        If a mask is missing or of another shape, or holds no voxel.
    """
    names = [tomogram_base_name(one.name) for one in candidates]
    files = {} if is_box(complete) else files_by_tomogram(complete, names, "volume")
    found = []
    for one, name, own in zip(candidates, names, lists, strict=True):
        examples, centers = own.select(named(own)).centers_xyz_angstrom, one.centers_xyz_angstrom
        aside = np.zeros(len(centers), dtype=bool)
        if len(examples):
            shape = one.run.shape_zyx
            region = read_region(str(files[name].path) if files else complete, name, shape, "--complete")
            voxels = np.rint(centers[:, ::-1] / one.run.voxel_size_zyx).astype(int)
            aside = region[tuple(np.clip(voxels, 0, np.array(shape) - 1).T)]
            rows, _, near = _nearest(one, examples)
            aside[rows[near]] = False
        found.append(ParticleList(centers[aside]))
    return found


def match_examples(
    candidates: Sequence[Candidates], particles: Sequence[ParticleList], others: Sequence[ParticleList] | None
) -> Examples:
    """Find the candidate that each example is: the nearest, if it is within that one's radius.

    Parameters
    ----------
    candidates, particles : sequences
        Of each tomogram.
    others : sequence of ParticleList, optional
        Counter-examples. Of two that name one candidate the nearer counts.
    """
    examples = Examples([])
    for number, candidate in enumerate(candidates):
        lists = [particles[number], *([] if others is None else [others[number]])]
        centers = np.concatenate([one.centers_xyz_angstrom for one in lists])
        names = [str(name) or UNNAMED for name in lists[0].class_name]
        names += [OTHER] * (len(centers) - len(names))
        known = np.full(len(candidate.table), "", dtype=object)
        wanted = np.flatnonzero(np.array(names, dtype=object) != UNANSWERED)
        rows, distance, near = _nearest(candidate, centers[wanted])
        for pick in np.argsort(-distance, kind="stable"):  # the nearest comes last, and stays
            if near[pick]:
                known[rows[pick]] = names[wanted[pick]]
        for center in centers[wanted[~near]]:
            examples.lost.append(f"{candidate.name} ({', '.join(f'{value:.0f}' for value in center)})")
        examples.known.append(known)
    return examples


def _nearest(candidate: Candidates, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nearest candidate of each example, its distance (Å), and whether that is within the candidate's radius."""
    volumes = candidate.table["volume_angstrom3"].to_numpy(float)
    diameters = np.maximum(np.cbrt(volumes * 6 / np.pi), float(candidate.settings["particle_diameter"]))
    if len(volumes) == 0 or len(centers) == 0:
        return np.zeros(len(centers), int), np.full(len(centers), np.inf), np.zeros(len(centers), bool)
    distance, rows = cKDTree(candidate.centers_xyz_angstrom).query(centers)
    return rows, distance, distance <= diameters[rows] / 2
