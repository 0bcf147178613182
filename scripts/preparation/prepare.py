"""prepare: tomograms and a particle list to instance labels and a datalist for training."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from custom_transforms.volumes.read import read_tomogram
from scripts.console import tell
from scripts.preparation import dataset
from scripts.preparation.copick import config_of
from scripts.preparation.folder import Stage, staged_folder
from scripts.preparation.inputs import (
    ShapeSpecs,
    TomogramInput,
    check_fractions,
    check_length,
    read_shape_specs,
    tomogram_inputs,
)
from scripts.preparation.labels import LabelOptions, label_particles, labels_as_given
from scripts.preparation.lists import Lists
from scripts.preparation.resample import resample_grid
from scripts.preparation.volume import is_box, read_region
from scripts.sources.copick_project import is_copick
from scripts.sources.labels_and_lists import TomogramFile, files_by_tomogram

__all__ = ["prepare"]


def prepare(
    *tomograms: str,
    particles: str | None = None,
    output_dir: str = "dataset",
    radius: float | None = None,
    template: str | None = None,
    template_voxel_size: float | None = None,
    threshold: float | None = None,
    invert: bool = False,
    shapes: str | None = None,
    labels: str | None = None,
    voxel_size: float | None = None,
    tomogram_voxel_size: float | None = None,
    shape: tuple[int, int, int] | None = None,
    from_format: str | None = None,
    binning: float | None = None,
    tomograms_star: str | None = None,
    region: str | None = None,
    ignore_shell: float = 0.0,
    merge_duplicates: bool = False,
    recenter: float = 0.0,
    recenter_on: str | None = None,
    contrast: str = "dark",
    validation: str | None = None,
    test: str | None = None,
    validation_fraction: float = 0.2,
    test_fraction: float = 0.0,
    allow_empty: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Turn tomograms and a particle list into instance labels and a dataset.json that training takes as it is.

    Parameters
    ----------
    tomograms : str
        Tomogram files, folders of them, patterns ('data/TS_*.mrc'), or those of a copick project:
        copick:CONFIG.json/TYPE@SPACING. Without any, give the labels' size with --shape.
    particles : str
        Particle list of all tomograms, one list per tomogram ('lists/{name}.csv', or a folder or pattern), or picks of
        a copick project: copick:CONFIG.json/OBJECT:USER/SESSION.
    output_dir : str
        Folder for labels, tables, pictures, prepare.json and dataset.json.
    radius : float
        Every particle is a sphere of this radius in Å; by default what a copick project says of its objects.
    template : str
        Every particle has the shape of this mask or density map (MRC), turned by its orientation.
    template_voxel_size : float
        Å per voxel of templates whose header does not tell (0, or exactly 1.0).
    threshold : float
        Density level of the template's surface; by default 0.5 for a mask, Otsu's threshold for a density.
    invert : bool
        The template's protein is dark.
    shapes : str
        JSON file with a shape per class: {"ribosome": {"mask": "ribo.mrc", "voxel_size": 10}, "*": {"radius": 80}}.
    labels : str
        Existing label volumes to take as they are, instead of a list: 'labels/{name}.mrc', a folder or pattern, or
        instance segmentations of a copick project: copick:CONFIG.json/OBJECT:USER/SESSION@SPACING.
    voxel_size : float
        Voxel size in Å that the model works at: tomograms and labels are stored at it.
    tomogram_voxel_size : float
        Å per voxel of tomograms whose header does not tell, or tells wrongly.
    shape : tuple of 3 int
        Size Z,Y,X of the labels where there are no tomograms.
    from_format : str
        Format of the particle list; guessed from its name and content.
    binning : float
        Voxel of the tomogram over pixel of the list, for lists in pixels of the tilt series (RELION, Warp, Dynamo...);
        by default what the list or the tomograms.star says, else 1, with a warning.
    tomograms_star : str
        RELION's tomograms.star, for the unbinned sizes that RELION 5 lists count from.
    region : str
        Annotated part: a mask file ('regions/{name}.mrc') or a box z0:z1,y0:y1,x0:x1 in voxels. The rest is ignored.
    ignore_shell : float
        Å around each particle that training ignores.
    merge_duplicates : bool
        Keep one of two particles closer than a third of their radius (the higher score).
    recenter : float
        Move each particle by up to this many Å to where the density agrees best with its class's average. For one kind
        of particle per class, and errors well below the limit: among different or touching particles it can make
        centers worse.
    recenter_on : str
        Lists of detections, or the folder of detect: --recenter moves each particle to the nearest of these instead.
    contrast : str
        'dark' (raw tomograms: protein dark) or 'bright'.
    validation : str
        Names of the tomograms to validate on, comma-separated; by default the last ones.
    test : str
        Names of the tomograms to test on, comma-separated.
    validation_fraction : float
        Part of the tomograms (of a single tomogram: part of its area) to validate on.
    test_fraction : float
        Part of the tomograms to test on.
    allow_empty : bool
        Make a data set although no particle is in its training part.
    overwrite : bool
        Replace an earlier data set in the folder.
    quiet : bool
        No progress bar and no summary.

    Examples
    --------
    python -m scripts prepare data/TS_*.mrc --particles picks.star --radius 120 --output_dir dataset
    python -m scripts prepare TS_01.mrc --particles picks.xml --shapes shapes.json --voxel_size 13.6
    """
    check_length("ignore_shell", ignore_shell)
    check_length("recenter", recenter)
    check_fractions(validation_fraction, test_fraction)
    if contrast not in ("dark", "bright"):
        raise ValueError(f"contrast: expected 'dark' or 'bright', got {contrast!r}.")
    if recenter_on is not None and (not recenter or particles is None):
        raise ValueError(
            "--recenter_on: expected --particles, which move, and --recenter, by how many Å at most. Give both."
        )
    if (particles is None) == (labels is None):
        raise ValueError("give exactly one of --particles LIST and --labels 'FILES/{name}.mrc'.")
    about_list = from_format, None if binning is None else float(binning), tomograms_star
    specs = lists = None
    if particles is not None:
        specs = read_shape_specs(particles, shapes, radius, template, template_voxel_size, threshold, invert)
    inputs = tomogram_inputs(tomograms, shape, tomogram_voxel_size, voxel_size, particles, *about_list)
    if particles is not None and specs is not None:
        lists = Lists(inputs, particles, specs.class_names, *about_list, recenter_on)
    options = LabelOptions(float(ignore_shell), bool(merge_duplicates), float(recenter))
    names = [one.name for one in inputs]
    volumes = None if labels is None else files_by_tomogram(labels, names, "volume")
    regions = {} if region is None or is_box(region) else files_by_tomogram(region, names, "volume")
    job = _Job(inputs, lists, specs, labels, volumes, options, region, regions, voxel_size, contrast, bool(quiet))
    folder = Path(output_dir)
    files = job.files() + [Path(file) for file in (shapes, template, tomograms_star) if file and Path(file).exists()]
    with staged_folder(folder, files, overwrite) as stage:
        split = dataset.split_names(names, validation, test, validation_fraction, test_fraction)
        part_apart = validation_fraction if len(inputs) == 1 and not validation and not test else 0.0
        summary = _write_dataset(job, stage, split, part_apart, bool(allow_empty))
    if not quiet:
        print(dataset.summary_text(summary))
    sections = {name: len(items) for name, items in summary["sections"].items()}
    told = f"{folder / 'dataset.json'}: {', '.join(f'{count} {name}' for name, count in sections.items())}"
    tell(told, written=[folder / "dataset.json"], sections=sections)


@dataclass(frozen=True)
class _Job:
    """The options of a call, checked."""

    inputs: list[TomogramInput]
    lists: Lists | None
    specs: ShapeSpecs | None
    labels: str | None
    volumes: dict[str, TomogramFile] | None
    options: LabelOptions
    region: str | None
    regions: dict[str, TomogramFile]
    voxel_size: float | None
    contrast: str
    quiet: bool

    @property
    def source(self) -> str:
        """What the particles are from."""
        return self.lists.particles if self.lists else str(self.labels)

    @property
    def classes(self) -> dict[str, int]:
        return self.lists.classes if self.lists else {}

    @property
    def record(self) -> dict[str, Any]:
        return {
            "particles": self.lists and self.source,
            "labels": self.labels,
            "shapes": self.specs and self.specs.specs,
            "binning": self.lists and self.lists.binning,
            "region": self.region,
            "recenter_on": self.lists and self.lists.recenter_on,
            "voxel_size": self.voxel_size,
            **vars(self.options),
        }

    def files(self) -> list[Path]:
        """Every file that is read."""
        found = [one.path for one in self.inputs if one.path] + (self.lists.files() if self.lists else [])
        found += [file.path for file in (*(self.volumes or {}).values(), *self.regions.values())]
        found += [Path(spec["mask"]) for spec in (self.specs.specs.values() if self.specs else ()) if "mask" in spec]
        return [config_of(path) if is_copick(path) else path for path in found]


def _write_dataset(
    job: _Job, stage: Stage, section_of: dict[str, str], part_apart: float, allow_empty: bool
) -> dict[str, Any]:
    sections: dict[str, list[dict]] = {"training": [], "validation": [], "test": [], "labels": []}
    tomograms: dict[str, Any] = {}
    notes = job.lists.notes if job.lists else []
    to_learn_from = 0
    for one in job.inputs:
        item, image = _prepare_one(job, one)
        if doubt := item.prepared.summary.pop("doubt", ""):
            notes.append(f"{one.name}: --recenter: {doubt}")
            warnings.warn(notes[-1], stacklevel=3)
        parts = {"labels" if image is None else section_of[one.name]: item}
        if image is not None and part_apart > 0:
            parts = dataset.split_by_region(item, image, part_apart)
        for section, part in parts.items():
            sections[section].append(dataset.write_item(part, stage.path, stage.output_dir, image))
            if section in ("training", "labels"):
                to_learn_from += int((part.prepared.table["label"] > 0).sum())
        stage.check()  # now, not after hours
        tomograms[one.name] = {
            "section": " + ".join(parts),
            "size_zyx": list(item.prepared.labels.shape),
            "voxel_size_zyx": item.voxel_size_zyx.tolist(),
            **item.prepared.summary,
        }
    if to_learn_from == 0 and not allow_empty:
        raise ValueError(
            f"{job.source}: no particle is in the training part of {', '.join(list(section_of)[:5])}, and "
            "networks learn nothing from it. Check names, binning and region, or give --allow_empty."
        )
    summary = {
        "files": stage.files(),
        "tomograms": tomograms,
        "classes": job.classes,
        "notes": notes,
        "sections": {name: items for name, items in sections.items() if bool(sections["labels"]) == (name == "labels")},
        "options": job.record,
    }
    dataset.write_json(stage.path / "prepare.json", summary)
    dataset.write_datalist(stage.path, stage.output_dir.resolve().name, sections, job.classes, job.source)
    return summary


def _prepare_one(job: _Job, one: TomogramInput) -> tuple[dataset.Item, np.ndarray | None]:
    volume, size, voxel, metadata = one.read()
    grid = resample_grid(size, voxel, job.voxel_size)
    image = None if volume is None else grid.resample(volume)
    where = str(job.regions[one.name].path) if job.regions else job.region
    region = None if where is None else grid.pick(read_region(where, one.name, size))
    if job.volumes is not None:
        path = job.volumes[one.name].path
        labels, _ = read_tomogram(str(path), check="labels")
        if labels.shape != size:
            raise ValueError(f"{path}: expected labels of the tomogram's shape {size}, got {labels.shape}.")
        prepared = labels_as_given(grid.pick(labels), grid.new_voxel_size_zyx, region, job.options.ignore_shell)
    elif job.lists is not None and job.specs is not None:
        particles = job.lists.particles_of(one, size, voxel)
        detections = job.lists.detections_of(one, size, voxel)
        look: dict[str, Any] = {"unit": "particle", "file": sys.stderr, "leave": False, "disable": job.quiet or None}
        with tqdm(total=len(particles), desc=one.name, **look) as bar:
            prepared = label_particles(
                particles.with_centers(grid.move_centers(particles.centers_xyz_angstrom)),
                job.specs,
                grid.new_size_zyx,
                grid.new_voxel_size_zyx,
                job.options,
                volume=image,
                region=region,
                detections=None if detections is None else grid.move_centers(detections),
                progress=bar.update,
            )
    origin = np.asarray(metadata.get("origin_xyz", np.zeros(3)), dtype=float) + grid.shift_xyz_angstrom
    stored: Path | np.ndarray | None = one.path if grid.is_same else image
    item = dataset.Item(one.name, stored, prepared, grid.new_voxel_size_zyx, origin, job.contrast, job.classes)
    return item, image
