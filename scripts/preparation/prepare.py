"""prepare: tomograms and a particle list to instance labels and a datalist for training."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from custom_transforms.volumes.read import read_tomogram
from scripts.console import tell
from scripts.particles.particle_list import ParticleList
from scripts.particles.registry import settled_context
from scripts.particles.shared.options import context_of
from scripts.particles.shared.plausible import check_positions
from scripts.preparation.copick import config_of, project_radii
from scripts.preparation.dataset import (
    Item,
    split_by_region,
    split_names,
    summary_text,
    write_datalist,
    write_item,
    write_json,
)
from scripts.preparation.folder import Stage, staged_folder
from scripts.preparation.inputs import (
    ShapeSpecs,
    TomogramInput,
    check_fractions,
    check_length,
    match_particles,
    number_classes,
    per_tomogram,
    position_note,
    read_list,
    read_shape_specs,
    tomogram_inputs,
)
from scripts.preparation.labels import LabelOptions, Prepared, label_particles, labels_as_given
from scripts.preparation.resample import Grid, resample_grid
from scripts.preparation.volume import read_region
from scripts.sources.copick_project import is_copick

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
        Particle list of all tomograms, one list per tomogram with {name} in its path: 'lists/{name}.csv', or picks of a
        copick project: copick:CONFIG.json/OBJECT:USER/SESSION.
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
        Existing label volumes to take as they are, instead of a list: 'labels/{name}.mrc', or instance segmentations of
        a copick project: copick:CONFIG.json/OBJECT:USER/SESSION@SPACING.
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
        Lists of detections, with {name} in their path: --recenter moves each particle to the nearest of these instead.
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
    if contrast not in ("dark", "bright"):
        raise ValueError(f"contrast: expected 'dark' or 'bright', got {contrast!r}.")
    check_length("radius", radius, "above 0")
    check_length("ignore_shell", ignore_shell)
    check_length("recenter", recenter)
    if recenter_on is not None and (not recenter or particles is None):
        raise ValueError(
            "--recenter_on: expected --particles, which move, and --recenter, by how many Å at most. Give both."
        )
    check_fractions(validation_fraction, test_fraction)
    folder = Path(output_dir)
    if (folder / "dataset.json").exists() and not overwrite:
        raise ValueError(
            f"{folder}/dataset.json exists already. Give another --output_dir, or --overwrite to replace it."
        )
    if (particles is None) == (labels is None):
        raise ValueError("give exactly one of --particles LIST and --labels 'FILES/{name}.mrc'.")
    specs = None
    if particles is not None and is_copick(particles) and shapes is None and radius is None and template is None:
        specs = ShapeSpecs({name: {"radius": size} for name, size in project_radii(particles).items()}, {})
    elif particles is not None:
        specs = read_shape_specs(shapes, radius, template, template_voxel_size, threshold, invert)
    job = _Job(
        inputs=tomogram_inputs(
            tomograms, shape, tomogram_voxel_size, voxel_size, particles, from_format, binning, tomograms_star
        ),
        particles=particles,
        labels=labels,
        specs=specs,
        options=LabelOptions(float(ignore_shell), bool(merge_duplicates), float(recenter)),
        format=from_format,
        binning=None if binning is None else float(binning),
        tomograms_star=tomograms_star,
        region=region,
        recenter_on=recenter_on,
        voxel_size=voxel_size,
        contrast=contrast,
        quiet=quiet,
        allow_empty=bool(allow_empty),
    )
    job.check_files()
    inputs = job.files() + [Path(file) for file in (shapes, template, tomograms_star) if file and Path(file).exists()]
    with staged_folder(folder, inputs, overwrite) as stage:
        summary = _write_dataset(job, stage, (validation, test, validation_fraction, test_fraction))
    if not quiet:
        print(summary_text(summary))
    sections = {name: len(items) for name, items in summary["sections"].items()}
    told = f"{folder / 'dataset.json'}: {', '.join(f'{count} {name}' for name, count in sections.items())}"
    tell(told, written=[folder / "dataset.json"], sections=sections)


@dataclass
class _Job:
    """The options of one call, checked, and what its tomograms share."""

    inputs: list[TomogramInput]
    particles: str | None
    labels: str | None
    specs: ShapeSpecs | None
    options: LabelOptions
    format: str | None
    binning: float | None
    tomograms_star: str | None
    region: str | None
    recenter_on: str | None
    voxel_size: float | None
    contrast: str
    quiet: bool
    allow_empty: bool = False
    notes: list[str] = field(default_factory=list)
    classes: dict[str, int] = field(default_factory=dict)
    _lists: dict[tuple, ParticleList] = field(default_factory=dict)
    _binning: float | None = None
    _rows: dict[str, np.ndarray] = field(default_factory=dict)

    def check_files(self) -> None:
        """Raise FileNotFoundError for any missing input before work begins."""
        lists = self.recenter_on
        if lists is not None and len(self.inputs) > 1 and "{name}" not in lists and not is_copick(lists):
            raise ValueError(
                f"--recenter_on {lists}: expected {{name}} in the path, as there are {len(self.inputs)} tomograms. "
                "Detections are a list for each: 'detections/{name}/{name}_particles.csv'."
            )
        self.files()

    def files(self) -> list[Path]:
        """Every file that is read; FileNotFoundError if a list, labels, region or template is missing."""
        region = self.region if self.region and ":" not in self.region else None
        found = [one.path for one in self.inputs]
        patterns = (self.particles, self.labels, region, self.recenter_on)
        found += [per_tomogram(pattern, one.name) for pattern in patterns for one in self.inputs]
        found += [Path(spec["mask"]) for spec in (self.specs.specs.values() if self.specs else ()) if "mask" in spec]
        return [config_of(path) if is_copick(path) else path for path in found if path is not None]

    def particles_of(self, one: TomogramInput, size_zyx: tuple[int, int, int], voxel: np.ndarray) -> ParticleList:
        """The particles of one tomogram, Å of that tomogram."""
        path = per_tomogram(self.particles, one.name)
        if path is None or self.specs is None:
            raise ValueError("give a particle list with --particles.")
        own_list = "{name}" in str(self.particles)
        key = (path, size_zyx, tuple(voxel), one.name if own_list else "")
        if key not in self._lists:
            context = context_of(
                voxel_size=voxel,
                size_zyx=size_zyx,
                binning=self.binning,
                tomograms_star=self.tomograms_star,
                class_names=self.specs.class_names,
            )
            if not is_copick(path):
                context = settled_context(path, self.format, context)
            self._binning = context.binning
            self._lists = {key: read_list(path, self.format, context)}
            self._number_classes(self._lists[key])
            self._note(position_note(path, self.format))
        particles = self._lists[key]
        if own_list:
            particles = particles.with_tomogram(one.name)
        else:
            if not self._rows:
                self._rows, notes = match_particles(particles, self.inputs)
                self.notes += notes
            particles = particles.select(self._rows[one.name])
        check_positions(particles, f"{path}: {one.name}", voxel, size_zyx, self._binning)
        return particles

    def detections_of(self, one: TomogramInput, size_zyx: tuple[int, int, int], voxel: np.ndarray) -> np.ndarray | None:
        """Centers (x, y, z) to recenter on, Å of that tomogram; None where the density decides."""
        path = per_tomogram(self.recenter_on, one.name)
        if path is None:
            return None
        context = context_of(voxel_size=voxel, size_zyx=size_zyx)
        detections = read_list(path, None, context)
        if "{name}" not in str(self.recenter_on):  # picks of a project are of all its runs
            detections = detections.select(match_particles(detections, self.inputs)[0][one.name])
        check_positions(detections, f"{path}: {one.name}", voxel, size_zyx)
        return detections.centers_xyz_angstrom

    def _note(self, text: str) -> None:
        self.notes += [text] if text and text not in self.notes else []

    def _number_classes(self, particles: ParticleList) -> None:
        names = self.specs.class_names if self.specs else {}
        numbered = all(key.isdecimal() for key in names)
        wanted = {name: int(key) for key, name in names.items()} if numbered else {}
        self.classes.update(number_classes(set(map(str, particles.class_name)), self.classes, wanted))


def _write_dataset(job: _Job, stage: Stage, split: tuple) -> dict[str, Any]:
    names = [one.name for one in job.inputs]
    section_of = split_names(names, *split)
    sections: dict[str, list[dict]] = {"training": [], "validation": [], "test": []}
    label_only: list[dict] = []
    counts: dict[str, list[int]] = {section: [] for section in (*sections, "labels")}
    tomograms: dict[str, Any] = {}
    for one in job.inputs:
        item, image, grid = _prepare_one(job, one)
        if len(job.inputs) == 1 and image is not None and split[2] > 0 and not split[0] and not split[1]:
            parts = split_by_region(item, image, float(split[2]))
        else:
            parts = {section_of[one.name]: item}
        for section, part in parts.items():
            entry = write_item(part, stage.path, stage.output_dir, image)
            (sections[section] if "image" in entry else label_only).append(entry)
            counts[section if "image" in entry else "labels"].append(int((part.prepared.table["label"] > 0).sum()))
        stage.check()  # now, not after hours
        tomograms[one.name] = {
            "section": " + ".join(parts),
            "size_zyx": list(grid.new_size_zyx),
            "voxel_size_zyx": grid.new_voxel_size_zyx.tolist(),
            **item.prepared.summary,
        }
    particles = sum(counts["training"] if not label_only else counts["labels"])
    if particles == 0 and not job.allow_empty:
        raise ValueError(
            f"{job.particles or job.labels}: no particle is in the training part of {', '.join(names[:5])}, and "
            "networks learn nothing from it. Check names, binning and region, or give --allow_empty."
        )
    summary = {
        "files": stage.files(),
        "tomograms": tomograms,
        "classes": job.classes,
        "notes": job.notes,
        "sections": sections if not label_only else {"labels": label_only},
        "options": {
            "particles": job.particles,
            "labels": job.labels,
            "shapes": job.specs.specs if job.specs else None,
            "binning": job.binning,
            "region": job.region,
            "recenter_on": job.recenter_on,
            "voxel_size": job.voxel_size,
            **vars(job.options),
        },
    }
    write_json(stage.path / "prepare.json", summary)
    name = stage.output_dir.resolve().name
    write_datalist(stage.path, name, {**sections, "labels": label_only}, job.classes, job.particles or job.labels)
    return summary


def _prepare_one(job: _Job, one: TomogramInput) -> tuple[Item, np.ndarray | None, Grid]:
    volume, size, voxel, metadata = one.read()
    grid = resample_grid(size, voxel, job.voxel_size)
    image = None if volume is None else grid.resample(volume)
    region = None if job.region is None else grid.pick(read_region(job.region, one.name, size))
    if job.labels is not None:
        prepared = _given_labels(job, one, grid, region)
    else:
        prepared = _painted(job, one, grid, image, region, size, voxel)
    origin = np.asarray(metadata.get("origin_xyz", np.zeros(3)), dtype=float) + grid.shift_xyz_angstrom
    stored: Path | np.ndarray | None = one.path if grid.is_same else image
    item = Item(one.name, stored, prepared, grid.new_voxel_size_zyx, origin, job.contrast, job.classes)
    return item, image, grid


def _painted(
    job: _Job,
    one: TomogramInput,
    grid: Grid,
    image: np.ndarray | None,
    region: np.ndarray | None,
    size: tuple[int, int, int],
    voxel: np.ndarray,
) -> Prepared:
    particles = job.particles_of(one, size, voxel)
    particles = particles.with_centers(grid.move_centers(particles.centers_xyz_angstrom))
    detections = job.detections_of(one, size, voxel)
    if job.specs is None:
        raise ValueError("give the particles' shape.")
    bar = tqdm(
        total=len(particles),
        desc=one.name,
        unit="particle",
        disable=True if job.quiet else None,
        file=sys.stderr,
        leave=False,
    )
    with bar:
        prepared = label_particles(
            particles,
            job.specs,
            grid.new_size_zyx,
            grid.new_voxel_size_zyx,
            job.options,
            volume=image,
            region=region,
            detections=None if detections is None else grid.move_centers(detections),
            progress=bar.update,
        )
    if doubt := prepared.summary.pop("doubt", ""):
        job.notes.append(f"{one.name}: --recenter: {doubt}")
        warnings.warn(job.notes[-1], stacklevel=2)
    return prepared


def _given_labels(job: _Job, one: TomogramInput, grid: Grid, region: np.ndarray | None) -> Prepared:
    path = per_tomogram(job.labels, one.name)
    volume, _ = read_tomogram(str(path), check="labels")
    if volume.shape != grid.old_size_zyx:
        raise ValueError(f"{path}: expected labels of the tomogram's shape {grid.old_size_zyx}, got {volume.shape}.")
    return labels_as_given(grid.pick(volume), grid.new_voxel_size_zyx, region, job.options.ignore_shell)
