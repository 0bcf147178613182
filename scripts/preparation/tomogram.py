"""One tomogram of a data set: read, resampled, labelled and written, in this process or by a worker."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from tqdm import tqdm

from custom_transforms.volumes.read import read_tomogram
from scripts.particles.particle_list import ParticleList
from scripts.preparation import dataset
from scripts.preparation.inputs import ShapeSpecs, TomogramInput
from scripts.preparation.labels import LabelOptions, label_particles, labels_as_given
from scripts.preparation.lists import Lists
from scripts.preparation.resample import resample_grid
from scripts.preparation.volume import read_region

__all__ = ["Found", "Prepared", "Task", "Work", "find_particles"]


@dataclass(frozen=True)
class Found:
    """What the lists say of one tomogram: its particles, centers to move them to, the classes so far, and notes."""

    particles: ParticleList
    detections: np.ndarray | None
    classes: Mapping[str, int]
    notes: list[str]


def find_particles(
    lists: Lists, one: TomogramInput, size_zyx: tuple[int, int, int], voxel_size_zyx: np.ndarray
) -> Found:
    """Ask the lists for a tomogram's particles. Classes are numbered as they come: ask in the order of the command."""
    before = len(lists.notes)
    particles = lists.particles_of(one, size_zyx, voxel_size_zyx)
    detections = lists.detections_of(one, size_zyx, voxel_size_zyx)
    return Found(particles, detections, dict(lists.classes), lists.notes[before:])


@dataclass(frozen=True)
class Task:
    """One tomogram: its section, what is annotated of it, and its labels or particles.

    ``particles`` is None where labels are given, and where `Work` has the lists.
    """

    tomogram: TomogramInput
    section: str
    region: str | None
    labels: Path | None
    particles: Found | None


@dataclass(frozen=True)
class Prepared:
    """What became of it: entries of the datalist by section, names of files, facts for prepare.json."""

    parts: dict[str, dict[str, Any]]
    files: list[str]
    to_learn_from: int
    facts: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    doubt: str = ""


@dataclass(frozen=True)
class Work:
    """What is the same for all tomograms of a call.

    Attributes
    ----------
    folder, output_dir : Path
        Where files are written first, and where they go.
    part_apart : float
        Part of a tomogram that is for validation; 0 leaves it whole.
    lists : Lists or None
        Where tasks come without their particles.
    """

    specs: ShapeSpecs | None
    options: LabelOptions
    voxel_size: float | None
    contrast: str
    quiet: bool
    folder: Path
    output_dir: Path
    part_apart: float
    lists: Lists | None

    def __call__(self, task: Task, second: bool) -> Prepared:
        """Do it; the same files each time."""
        item, image, notes = self._item(task)
        doubt = item.prepared.summary.pop("doubt", "")
        parts = {"labels" if image is None else task.section: item}
        if image is not None and self.part_apart > 0:
            parts = dataset.split_by_region(item, image, self.part_apart)
        written = {name: dataset.write_item(part, self.folder, self.output_dir, image) for name, part in parts.items()}
        learned = [part.prepared.table for name, part in parts.items() if name in ("training", "labels")]
        facts = {
            "section": " + ".join(parts),
            "size_zyx": list(item.prepared.labels.shape),
            "voxel_size_zyx": item.voxel_size_zyx.tolist(),
            **item.prepared.summary,
        }
        return Prepared(
            {name: entry for name, (entry, _) in written.items()},
            [file for _, files in written.values() for file in files],
            sum(int((table["label"] > 0).sum()) for table in learned),
            facts, notes, doubt,
        )  # fmt: skip

    def _item(self, task: Task) -> tuple[dataset.Item, np.ndarray | None, list[str]]:
        """The labelled tomogram, its volume on the same voxels, and notes."""
        one, found = task.tomogram, task.particles
        volume, size, voxel, metadata = one.read()
        grid = resample_grid(size, voxel, self.voxel_size)
        image = None if volume is None else grid.resample(volume)
        region = None if task.region is None else grid.pick(read_region(task.region, one.name, size))
        if task.labels is not None:
            labels, _ = read_tomogram(str(task.labels), check="labels")
            if labels.shape != size:
                raise ValueError(f"{task.labels}: expected labels of the tomogram's shape {size}, got {labels.shape}.")
            prepared = labels_as_given(grid.pick(labels), grid.new_voxel_size_zyx, region, self.options.ignore_shell)
        else:
            if found is None:
                found = find_particles(cast(Lists, self.lists), one, size, voxel)
            look: dict[str, Any] = {
                "unit": "particle",
                "file": sys.stderr,
                "leave": False,
                "disable": self.quiet or None,
            }
            with tqdm(total=len(found.particles), desc=one.name, **look) as bar:
                prepared = label_particles(
                    found.particles.with_centers(grid.move_centers(found.particles.centers_xyz_angstrom)),
                    cast(ShapeSpecs, self.specs),
                    grid.new_size_zyx,
                    grid.new_voxel_size_zyx,
                    self.options,
                    volume=image,
                    region=region,
                    detections=None if found.detections is None else grid.move_centers(found.detections),
                    progress=bar.update,
                )
        origin = np.asarray(metadata.get("origin_xyz", np.zeros(3)), dtype=float) + grid.shift_xyz_angstrom
        stored: Path | np.ndarray | None = one.path if grid.is_same else image
        classes = found.classes if found else {}
        item = dataset.Item(one.name, stored, prepared, grid.new_voxel_size_zyx, origin, self.contrast, classes)
        return item, image, found.notes if found else []
