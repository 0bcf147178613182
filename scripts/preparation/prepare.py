"""prepare: tomograms and a particle list to instance labels and a datalist for training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.cluster.spread import in_order
from scripts.cluster.workers import each
from scripts.console import tell
from scripts.preparation import dataset
from scripts.preparation.copick import config_of
from scripts.preparation.folder import Stage, staged_folder
from scripts.preparation.inputs import (
    ShapeSpecs,
    TomogramInput,
    check_fractions,
    check_length,
    check_room,
    read_shape_specs,
    tomogram_inputs,
)
from scripts.preparation.labels import LabelOptions
from scripts.preparation.lists import Lists
from scripts.preparation.tomogram import Prepared, Task, Work, find_particles
from scripts.preparation.volume import is_box
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
    cluster: str | None = None,
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
    cluster : str
        Spread the tomograms over workers, as with detect: local, tcp://host:8786, or a JSON file.

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
    if bool(particles) == bool(labels):
        raise ValueError("give exactly one of --particles LIST and --labels 'FILES/{name}.mrc'.")
    about_list = from_format, None if binning is None else float(binning), tomograms_star
    specs = None
    if particles:
        specs = read_shape_specs(particles, shapes, radius, template, template_voxel_size, threshold, invert)
    inputs = tomogram_inputs(tomograms, shape, tomogram_voxel_size, voxel_size, particles, *about_list)
    lists = Lists(inputs, particles, specs.class_names, *about_list, recenter_on) if particles and specs else None
    options = LabelOptions(float(ignore_shell), bool(merge_duplicates), float(recenter))
    names = [one.name for one in inputs]
    volumes = None if labels is None else files_by_tomogram(labels, names, "volume")
    regions = {} if region is None or is_box(region) else files_by_tomogram(region, names, "volume")
    job = _Job(inputs, lists, specs, labels, volumes, options, region, regions, voxel_size, cluster)
    if cluster is None:  # workers have memory of their own
        check_room(inputs, (volumes or {}, regions), voxel_size, moves=bool(ignore_shell or recenter))
    folder = Path(output_dir)
    files = job.files() + [Path(file) for file in (shapes, template, tomograms_star) if file and Path(file).exists()]
    with staged_folder(folder, files, overwrite) as stage:
        split = dataset.split_names(names, validation, test, validation_fraction, test_fraction)
        part_apart = validation_fraction if len(inputs) == 1 and not validation and not test else 0.0
        folders = stage.path.absolute(), stage.output_dir.absolute()
        own_lists = None if cluster else lists
        work = Work(specs, options, voxel_size, contrast, bool(quiet), *folders, part_apart, own_lists)
        summary = _write_dataset(job, stage, work, split, bool(allow_empty))
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
    cluster: str | None

    @property
    def source(self) -> str:
        """What the particles are from."""
        return self.lists.particles if self.lists else str(self.labels)

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

    def tasks(self, section_of: Mapping[str, str]) -> list[Task]:
        """A task for every tomogram, with its particles if workers do it: they do not know how others are numbered."""
        tasks = []
        for one in self.inputs:
            region = str(self.regions[one.name].path) if self.regions else self.region
            labels = None if self.volumes is None else self.volumes[one.name].path
            particles = find_particles(self.lists, one, *one.geometry()) if self.lists and self.cluster else None
            tasks.append(Task(one, section_of[one.name], region, labels, particles))
        return tasks


def _write_dataset(
    job: _Job, stage: Stage, work: Callable[[Task, bool], Prepared], section_of: Mapping[str, str], allow_empty: bool
) -> dict[str, Any]:
    sections: dict[str, list[dict]] = {"training": [], "validation": [], "test": [], "labels": []}
    tomograms: dict[str, Any] = {}
    notes: list[str] = []
    files: set[str] = set()
    to_learn_from = 0
    tasks = job.tasks(section_of)
    for task, done in zip(tasks, in_order(each(work, tasks, job.cluster)), strict=True):
        name = task.tomogram.name
        notes += done.notes
        if done.doubt:
            notes.append(f"{name}: --recenter: {done.doubt}")
            warnings.warn(notes[-1], stacklevel=3)
        for section, entry in done.parts.items():
            sections[section].append(entry)
        if twice := [file for file in done.files if file in files]:
            raise ValueError(
                f"{twice[0]}: two tomograms would write this file. Rename one of them, or prepare them apart."
            )
        files.update(done.files)
        to_learn_from += done.to_learn_from
        stage.check()  # now, not after hours
        tomograms[name] = done.facts
    if to_learn_from == 0 and not allow_empty:
        raise ValueError(
            f"{job.source}: no particle is in the training part of {', '.join(list(section_of)[:5])}, and "
            "networks learn nothing from it. Check names, binning and region, or give --allow_empty."
        )
    classes = job.lists.classes if job.lists else {}
    summary = {
        "files": stage.files(),
        "tomograms": tomograms,
        "classes": classes,
        "notes": notes,
        "sections": {name: items for name, items in sections.items() if bool(sections["labels"]) == (name == "labels")},
        "options": job.record,
    }
    dataset.write_json(stage.path / "prepare.json", summary)
    dataset.write_datalist(stage.path, stage.output_dir.resolve().name, sections, classes, job.source)
    return summary
