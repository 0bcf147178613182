"""Write what a detection found: the files of one tomogram, and the record of how they were made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from monai.transforms import Transform

from custom_transforms.files.claim import claimed
from custom_transforms.files.json_object import to_json
from custom_transforms.files.names import tomogram_name
from custom_transforms.files.whole_files import check_folder, check_name
from custom_transforms.units import as_voxel_size_zyx
from custom_transforms.volumes.checks import add_warning, metadata_warnings
from custom_transforms.volumes.lazy import LabelVolume, PlaneCache, Streams
from custom_transforms.volumes.mrc_write import write_instances
from custom_transforms.volumes.zarr_read import import_zarr
from scripts.console import user_message
from scripts.metrics import SaveMetrics
from scripts.particles.detected import write_lists
from scripts.particles.registry import find_format
from scripts.records import model
from scripts.records.detection import (
    CONVENTIONS,
    DetectionRecord,
    Inputs,
    command_line,
    inputs_of,
    read_metadata,
    remove_detection,
    versions,
)
from scripts.records.weights import read_record
from scripts.report import center_map as center_maps
from scripts.report.report import make_report
from scripts.sources.copick_project import split_picks_uri
from scripts.sources.copick_write import check_segmentation, check_target, run_of, write_picks, write_segmentation

__all__ = ["SaveDetectiond", "SaveMetrics"]

LISTS = {"csv": "{name}_particles.csv", "original": "{name}_centers.txt", "relion5": "{name}_particles.star"}
PAGE = {"center_map": center_maps.NAME, "report": "{name}_report.html"}


class SaveDetectiond(Transform):
    """Write instances, particle lists and the record of one tomogram into ``<output_dir>/<tomogram>/``.

    Each file gets its name when it is whole; ``<tomogram>.json`` comes last, so its presence says that all are there.

    Parameters
    ----------
    output_dir : path
    weights : path
        Recorded with its sha256.
    settings : mapping
        What the result depends on, recorded; null values are left out.
    formats : sequence of str
        Particle lists to write; ``csv`` is the full table, with the dropped particles, and is always written.
    report : bool
        Make the HTML page, too, and keep the center map that it shows. A page that cannot be made is a warning.
    overwrite : bool
        Replace the files of an earlier detection; otherwise one that is there is an error.
    copick : str, optional
        ``copick:CONFIG.json/OBJECT:USER/SESSION``: the particles are also written into that project as picks, and as
        instance segmentation (not of a streamed tomogram), under the run of the tomogram's name. With classes, ``*`` as
        the object writes those of each class under the object of its name.
    bundle_root : path
        The bundle whose name and version are recorded; the one of this code if there is none.

    Notes
    -----
    Takes ``image`` (for the metadata), ``instances`` (labels), ``particles`` (the table) and optionally ``timings``
    (seconds by stage), ``warnings`` (texts beside those of the metadata) and ``computed`` (the path, tile and batch
    that memory allowed, whatever the settings say); returns them unchanged, with ``output_files``.
    """

    streams = Streams("particles", "saved")

    def __init__(
        self,
        output_dir: str | Path,
        weights: str | Path,
        settings: Mapping[str, Any],
        formats: Sequence[str] = ("csv", "original", "relion5"),
        report: bool = True,
        overwrite: bool = False,
        copick: str | None = None,
        bundle_root: str | Path = ".",
    ) -> None:
        self.target = ("", "", "", "") if copick is None else split_picks_uri(copick)
        self.bundle = read_metadata(Path(bundle_root), Path(__file__).parents[1])
        self.copick = copick
        self.output_dir, self.weights = Path(output_dir), Path(weights)
        self.settings = {name: value for name, value in settings.items() if value is not None}
        self.report, self.overwrite = report, overwrite
        self.edits: dict[str, Any] = {}  # ids of the config that were replaced, as `Detector` knows them
        self.formats = list(dict.fromkeys(["csv", *(find_format(name).name for name in formats)]))
        self.classes: list[str] = list(self.settings.get("classes") or [])
        of_classes = self.target[1] == "*" and bool(self.classes)
        if "*" in self.target[2 if of_classes else 0 :]:
            raise ValueError(
                f"{copick}: expected copick:CONFIG.json/OBJECT:USER/SESSION, to write to, got {'/'.join(self.target)}."
            )
        self.objects = self.classes if of_classes else [self.target[1]]  # of the copick project
        self.names = {
            "instances": "{name}_instances.mrc",
            **({"classes": "{name}_classes.mrc"} if len(self.classes) > 1 else {}),
            **{key: _list_name(key) for key in self.formats},
            **(PAGE if report else {}),
        }

    @cached_property
    def _class_of(self) -> dict[str, str]:
        """The class that each name of the training's data set stands for; once, as the weights are hashed for it."""
        return read_record(self.weights).class_of() if self.classes else {}

    def folder(self, tomogram: str | Path) -> Path:
        """Where the files of a tomogram go."""
        return self.output_dir / tomogram_name(tomogram)

    def record(self, tomogram: str | Path) -> Path:
        """Where the record of a tomogram goes; it is written last, so it says that all files are there."""
        return self.folder(tomogram) / f"{tomogram_name(tomogram)}.json"

    def files(self, tomogram: str | Path) -> dict[str, Path]:
        """Where the files of a tomogram go, by what the record calls them."""
        name = tomogram_name(tomogram)
        return {key: self.folder(tomogram) / pattern.format(name=name) for key, pattern in self.names.items()}

    def check(self, tomogram: str | Path, voxel_size_zyx: np.ndarray | None = None) -> None:
        """Refuse a tomogram whose picks, or segmentation where a voxel size (Å) is given, cannot go where they should.

        Raises
        ------
        ValueError
            If the copick project cannot take them, or has them already.
        ImportError
            If the package is missing that writes segmentations.
        """
        if self.copick is not None:
            (config, _, user, session), name = self.target, tomogram_name(tomogram)
            for wanted in self.objects:
                check_target(config, name, wanted, user, session, self.overwrite)
                if voxel_size_zyx is not None:
                    import_zarr()
                    check_segmentation(config, name, wanted, user, session, voxel_size_zyx, self.overwrite)

    def inputs(self, tomogram: str | Path | Mapping[str, Any]) -> Inputs:
        """What the detection of a tomogram, a path or an item of a datalist, depends on; see `inputs_of`."""
        item = tomogram if isinstance(tomogram, Mapping) else {"image": tomogram}
        return inputs_of(item, self.settings, self.weights, self.edits)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        with claimed(self.folder(data["image"].meta["filename_or_obj"])):
            return self._written(dict(data))

    def _written(self, d: dict[str, Any]) -> dict[str, Any]:
        meta = d["image"].meta
        path = meta["filename_or_obj"]
        labels = np.asarray(d["instances"]).reshape(d["instances"].shape[-3:])
        self._write_labels(meta, labels, d["particles"])
        if self.copick is not None:
            config, _, user, session = self.target
            run, voxel_size_zyx = run_of(config, tomogram_name(path)), as_voxel_size_zyx(meta["voxel_size_zyx"])
            of_label = self._class_numbers(d["particles"]) if self.target[1] == "*" else None
            for number, name in enumerate(self.objects, start=1):
                own = labels if of_label is None else np.where(of_label[labels] == number, labels, 0)
                write_segmentation(own, voxel_size_zyx, config, run, name, user, session, overwrite=self.overwrite)
        center_map = np.asarray(d["center_map"]).reshape(labels.shape) if "center_map" in d else None
        d["output_files"] = self.finish(d, labels.shape, center_map)
        return d

    def streamed(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The same with the label volume written by slabs, and no instance segmentation for copick."""
        image, labels = data["image"], data["instances"]
        path = image.meta["filename_or_obj"]
        if self.copick is not None:
            text = (
                f"{path}: streamed, so the copick project gets its picks alone, no instance segmentation (an older one "
                "there is left as it is); the labels are in the MRC file"
            )
            add_warning(image.meta, text)
        self._write_labels(image.meta, labels, data["particles"])
        return {**data, "output_files": self.finish(data, labels.shape, data["center_map"])}

    def _write_labels(self, meta: Mapping[str, Any], labels: Any, table: pd.DataFrame) -> None:
        """Make the folder of a tomogram, and its label volumes, under the place that the tomogram's header has."""
        path = meta["filename_or_obj"]
        self.begin(path)
        files = self.files(path)
        origin, nstart = meta.get("origin_xyz", (0, 0, 0)), meta.get("header", {}).get("nstart_xyz", (0, 0, 0))
        place = as_voxel_size_zyx(meta["voxel_size_zyx"]), origin, nstart
        lazy = isinstance(labels, LabelVolume)
        highest = labels.highest if lazy else None
        write_instances(files["instances"], PlaneCache(labels) if lazy else labels, *place, highest=highest)
        if "classes" in files:
            numbers = self._class_numbers(table)
            volume = PlaneCache(labels.renumbered(numbers)) if lazy else numbers[labels]
            write_instances(files["classes"], volume, *place, highest=len(self.classes))

    def _class_numbers(self, table: pd.DataFrame) -> np.ndarray:
        """Number of the class of every label, from 1 in the order of the classes; 0 for what has none."""
        numbers = np.zeros(int(table["label"].max() if len(table) else 0) + 1, dtype=np.int32)
        kept = table[table["label"] > 0]
        numbers[kept["label"].to_numpy()] = kept["class"].map({c: k + 1 for k, c in enumerate(self.classes)}).fillna(0)
        return numbers

    def check_output(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Refuse, before any work, items of a datalist whose results have no place to go.

        Raises
        ------
        FileExistsError
            If one was detected before, and nothing is to be overwritten.
        OSError
            If the output folder, or the one that a tomogram has there already, cannot be written to, or names of files
            would be too long.
        """
        items = list(items)
        check_folder(self.output_dir, "--output_dir")
        advice = "Its files are called after the tomogram: give that a shorter name."
        for tomogram in dict.fromkeys(item["image"] for item in items):
            for file in self.files(tomogram).values():
                check_name(self.output_dir / file.name, advice)
            self.refuse_earlier(tomogram)
            if self.folder(tomogram).exists():
                check_folder(self.folder(tomogram), "--output_dir")

    def refuse_earlier(self, tomogram: str | Path) -> None:
        """Refuse a tomogram that was detected before, unless it is to be overwritten (`FileExistsError`)."""
        record = self.record(tomogram)
        if record.exists() and not self.overwrite:
            raise FileExistsError(
                f"{record}: an earlier detection is there. Choose another --output_dir, or --overwrite to replace it."
            )

    def begin(self, tomogram: str | Path) -> None:
        """Make the folder of a tomogram, without the record and files of an earlier detection, which it may refuse."""
        self.refuse_earlier(tomogram)
        self.folder(tomogram).mkdir(parents=True, exist_ok=True)
        remove_detection(self.record(tomogram))

    def finish(self, data: Mapping[str, Any], shape_zyx: Sequence[int], center_map: Any = None) -> dict[str, Path]:
        """Write lists, report and, last, the record; the label volume is there already.

        Parameters
        ----------
        data : mapping
            As `__call__` takes it; of ``image`` only the metadata are read, and ``instances`` not at all.
        shape_zyx : sequence of 3 ints
        center_map : array-like, shape (Z, Y, X), optional
            What the report shows: only sliced, so it may be larger than memory.

        Returns
        -------
        dict of str to Path
            The files, by what they are.
        """
        meta = data["image"].meta
        path, files = meta["filename_or_obj"], self.files(meta["filename_or_obj"])
        if center_map is None:
            files.pop("center_map", None)
        voxel_size_zyx, name = as_voxel_size_zyx(meta["voxel_size_zyx"]), tomogram_name(path)
        lists = {format: files[format] for format in self.formats}
        particles = write_lists(lists, name, data["particles"], shape_zyx, voxel_size_zyx)
        if self.copick is not None:
            config, _, user, session = self.target
            size, run = float(voxel_size_zyx[2]), run_of(config, name)
            for wanted in self.objects:
                mine = np.asarray(particles.class_name) == wanted
                own = particles.select(mine) if self.target[1] == "*" else particles
                write_picks(own, config, wanted, user, session, size, self.overwrite, run=run)
        record = self._record(data, shape_zyx, files)
        if self.report:
            try:
                if center_map is not None:
                    center_maps.write(files["center_map"], center_map, voxel_size_zyx)
                make_report(self.folder(path) / name, record=record)
            except Exception as error:  # lists and labels are worth more than their page
                add_warning(meta, f"no report was written: {user_message(error)}")
                files = {key: file for key, file in files.items() if file.is_file()}
                record = self._record(data, shape_zyx, files)
        model.write(record, self.record(path))
        return {**files, "record": self.record(path)}

    def _record(self, data: Mapping[str, Any], shape_zyx: Sequence[int], files: Mapping[str, Path]) -> DetectionRecord:
        meta, table = data["image"].meta, data["particles"]
        tomogram = {
            "shape_zyx": shape_zyx,
            "voxel_size_zyx_angstrom": list(meta["voxel_size_zyx"]),
            "origin_xyz_angstrom": list(meta.get("origin_xyz", (0, 0, 0))),
            "header": meta.get("header", {}),
        }
        kept = table.loc[table["label"] > 0, "class"]
        by_class = {name: int((kept == name).sum()) for name in self.classes}
        dropped = table.loc[table["label"] == 0, "dropped_by"].value_counts().to_dict()
        content = {
            "bundle": self.bundle.name,
            "bundle_version": self.bundle.version,
            "tomogram": tomogram,
            "conventions": CONVENTIONS,
            "weights": self.weights,
            "command": command_line(),
            "particles": {"kept": len(kept), "dropped": dropped, **({"by_class": by_class} if by_class else {})},
            **({"classes": {str(k + 1): name for k, name in enumerate(self.classes)}} if self.classes else {}),
            **({"class_of": self._class_of} if any(name != one for one, name in self._class_of.items()) else {}),
            "files": {key: file.name for key, file in files.items()},
            **({} if self.copick is None else {"copick": self.copick}),
            "warnings": list(dict.fromkeys([*metadata_warnings(meta), *data.get("warnings", ())])),
            "computed": data.get("computed") or {},
            "timings_seconds": data.get("timings") or {},
            "made_with": versions(),
        }
        return DetectionRecord(inputs=self.inputs({**data, "image": meta["filename_or_obj"]}), **to_json(content))


def _list_name(format: str) -> str:
    return LISTS.get(format, f"{{name}}_particles_{format}{find_format(format).suffixes[0]}")
