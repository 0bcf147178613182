"""Write what a detection found: the files of one tomogram, and the record of how they were made."""

from __future__ import annotations

import json
import platform
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ignite.engine import Engine, Events
from monai.transforms import Transform

from custom_transforms.files.claim import claimed
from custom_transforms.files.names import tomogram_base_name, tomogram_name
from custom_transforms.files.whole_files import atomic_path, check_folder
from custom_transforms.measuring.particle_filter import mask_path
from custom_transforms.units import as_voxel_size_zyx, voxel_zyx_to_angstrom_xyz
from custom_transforms.volumes.checks import add_warning, metadata_warnings
from custom_transforms.volumes.lazy import PlaneCache, Streams, map_volume
from custom_transforms.volumes.mrc_write import instance_dtype, new_header, write_instances, write_volume
from custom_transforms.volumes.zarr_read import import_zarr
from scripts.particles.csv_table import table_text
from scripts.particles.particle_list import ParticleList
from scripts.particles.registry import find_format, write_particles
from scripts.particles.shared.context import ParticleListWarning, TomogramContext
from scripts.particles.shared.format import write_text
from scripts.records.detection import file_sha256, file_state, remove_detection
from scripts.report.report import make_report
from scripts.sources.copick_project import split_picks_uri
from scripts.sources.copick_write import check_segmentation, check_target, run_of, write_picks, write_segmentation

__all__ = ["INSTANCES", "SaveDetectiond", "SaveMetrics"]

INSTANCES = "{name}_instances.mrc"
VOLUMES = ("region", "exclude", "membrane")  # settings that name a volume of the user's
FILE_NAMES = {"csv": "{name}_particles.csv", "original": "{name}_centers.txt", "relion5": "{name}_particles.star"}


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
        Make the HTML page, too.
    overwrite : bool
        Replace the files of an earlier detection; otherwise one that is there is an error.
    copick : str, optional
        ``copick:CONFIG.json/OBJECT:USER/SESSION``: the particles are also written into that project as picks, and as
        instance segmentation (not of a streamed tomogram), under the run of the tomogram's name.
    bundle_root : path
        The bundle whose name and version are recorded; the one of this code if there is none.

    Notes
    -----
    Takes ``image`` (for the metadata), ``instances`` (labels), ``particles`` (the table) and optionally ``timings``
    (seconds by stage) and ``computed`` (the path, tile and batch that memory allowed, whatever the settings say);
    returns them unchanged, with ``output_files``.
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
        if copick is not None and "*" in (words := split_picks_uri(copick)):
            raise ValueError(
                f"{copick}: expected copick:CONFIG.json/OBJECT:USER/SESSION, to write to, got {'/'.join(words)}."
            )
        self.copick, self.bundle_root = copick, Path(bundle_root)
        self.output_dir, self.weights = Path(output_dir), Path(weights)
        self.settings = {name: value for name, value in settings.items() if value is not None}
        self.formats = [find_format(one).name for one in formats]
        self.report, self.overwrite = report, overwrite

    def folder(self, tomogram: str | Path) -> Path:
        """Where the files of a tomogram go."""
        return self.output_dir / tomogram_name(tomogram)

    def record(self, tomogram: str | Path) -> Path:
        """Where the record of a tomogram goes; it is written last, so it says that all files are there."""
        return self.folder(tomogram) / f"{tomogram_name(tomogram)}.json"

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
            config, wanted, user, session = split_picks_uri(self.copick)
            name = tomogram_name(tomogram)
            check_target(config, name, wanted, user, session, self.overwrite)
            if voxel_size_zyx is not None:
                import_zarr()
                check_segmentation(config, name, wanted, user, session, voxel_size_zyx, self.overwrite)

    @property
    def written(self) -> list[str]:
        """What a detection leaves beside its record, as the record's ``files`` calls it."""
        return list(dict.fromkeys(["instances", "csv", *self.formats, *(["report"] if self.report else [])]))

    def inputs(self, tomogram: str | Path | Mapping[str, Any]) -> dict[str, Any]:
        """What a detection depends on; two detections with the same are the same.

        ``tomogram`` is a path, or an item of a datalist, whose own voxel size and contrast count, too.

        Raises
        ------
        FileNotFoundError
            If the tomogram, or a volume that goes with it (region, exclude, membrane), is not there.
        """
        item = tomogram if isinstance(tomogram, Mapping) else {"image": tomogram}
        own: dict[str, Any] = {}
        if item.get("voxel_size") is not None:
            own["voxel_size"] = np.asarray(item["voxel_size"], dtype=float).ravel().tolist()
        if item.get("contrast") is not None:
            own["contrast"] = str(item["contrast"])
        volumes = {
            name: file_state(mask_path(str(self.settings[name]), item["image"]))
            for name in VOLUMES
            if name in self.settings
        }
        return {
            "tomogram": {**file_state(item["image"]), **own},
            **volumes,
            "settings": json.loads(json.dumps(self.settings)),
            "weights_sha256": file_sha256(self.weights, self.weights.stat().st_mtime),
        }

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        with claimed(self.folder(data["image"].meta["filename_or_obj"])):
            return self._written(dict(data))

    def _written(self, d: dict[str, Any]) -> dict[str, Any]:
        meta = d["image"].meta
        path = meta["filename_or_obj"]
        folder, name = self.begin(path), tomogram_name(path)
        labels = np.asarray(d["instances"]).reshape(d["instances"].shape[-3:])
        voxel_size_zyx = as_voxel_size_zyx(meta["voxel_size_zyx"])
        write_instances(
            folder / INSTANCES.format(name=name),
            labels,
            voxel_size_zyx,
            origin_xyz=meta.get("origin_xyz", (0, 0, 0)),
            nstart_xyz=meta.get("header", {}).get("nstart_xyz", (0, 0, 0)),
        )
        if self.copick is not None:
            config, wanted, user, session = split_picks_uri(self.copick)
            run = run_of(config, name)
            write_segmentation(labels, voxel_size_zyx, config, run, wanted, user, session, overwrite=self.overwrite)
        center_map = np.asarray(d["center_map"]).reshape(labels.shape) if "center_map" in d else None
        d["output_files"] = self.finish(d, labels, path, center_map)
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
        instances = self.begin(path) / INSTANCES.format(name=tomogram_name(path))
        stored = instance_dtype(labels.highest)
        nstart = image.meta.get("header", {}).get("nstart_xyz", (0, 0, 0))
        origin = image.meta.get("origin_xyz", (0, 0, 0))
        header = new_header(labels.shape, stored, np.asarray(image.meta["voxel_size_zyx"]), origin, nstart)
        write_volume(instances, PlaneCache(labels), stored, header)
        files = self.finish(data, map_volume(instances)[0], image.volume, data["center_map"])
        return {**data, "output_files": files}

    def check_output(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Refuse, before any work, items of a datalist whose results have no place to go.

        Raises
        ------
        FileExistsError
            If one was detected before, and nothing is to be overwritten.
        OSError
            If the output folder, or the one that a tomogram has there already, cannot be written to.
        """
        items = list(items)
        self.refuse_earlier(items)
        for folder in dict.fromkeys([self.output_dir, *(self.folder(item["image"]) for item in items)]):
            if folder == self.output_dir or folder.exists():
                check_folder(folder, "--output_dir")

    def refuse_earlier(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Refuse tomograms, items of a datalist, that were detected before, unless they are to be overwritten.

        Raises
        ------
        FileExistsError
            Names the record of the earlier detection.
        """
        for item in items:
            record = self.record(item["image"])
            if record.exists() and not self.overwrite:
                raise FileExistsError(
                    f"{record}: an earlier detection is there. Choose another --output_dir, or --overwrite to "
                    "replace it."
                )

    def begin(self, tomogram: str | Path) -> Path:
        """Make the folder of a tomogram, without the record and files of an earlier detection.

        Raises
        ------
        FileExistsError
            If there is one, and nothing is to be overwritten.
        """
        self.refuse_earlier([{"image": tomogram}])
        folder = self.folder(tomogram)
        folder.mkdir(parents=True, exist_ok=True)
        remove_detection(self.record(tomogram))
        return folder

    def finish(self, data: Mapping[str, Any], labels: Any, tomogram: Any, center_map: Any = None) -> dict[str, Path]:
        """Write lists, report and, last, the record; the label volume is there already.

        Parameters
        ----------
        data : mapping
            As `__call__` takes it; of ``image`` only the metadata are read, and ``instances`` not at all.
        labels, tomogram, center_map : array-like, shape (Z, Y, X), or path
            What the report shows: only sliced, so they may be larger than memory. Labels need a shape.

        Returns
        -------
        dict of str to Path
            The files, by what they are.
        """
        meta, table = data["image"].meta, data["particles"]
        path = meta["filename_or_obj"]
        folder, name = self.folder(path), tomogram_name(path)
        files = {"instances": folder / INSTANCES.format(name=name)}
        files.update(self._write_lists(folder, name, table, labels.shape, as_voxel_size_zyx(meta["voxel_size_zyx"])))
        made = self._record(data, table, labels.shape, files)
        if self.report:
            files["report"] = make_report(
                folder / name, tomogram=tomogram, instances=labels, center_map=center_map, particles=table, info=made
            )
            made["files"]["report"] = files["report"].name
        text = json.dumps(made, indent=2, default=_plain)
        record = self.record(path)
        with atomic_path(record) as temporary:
            Path(temporary).write_text(text + "\n")
        return {**files, "record": record}

    def _write_lists(
        self, folder: Path, name: str, table: pd.DataFrame, size_zyx: tuple[int, ...], voxel_size_zyx: np.ndarray
    ) -> dict[str, Path]:
        files = {"csv": folder / FILE_NAMES["csv"].format(name=name)}
        write_text(files["csv"], table_text(table, float_format="%.6g"))
        kept = table[table["label"] > 0]
        particles = ParticleList(
            voxel_zyx_to_angstrom_xyz(kept[["z_vox", "y_vox", "x_vox"]].to_numpy(float), voxel_size_zyx),
            tomogram=tomogram_base_name(name),
            class_name=kept["class"].astype(str).to_numpy() if "class" in kept else "",
            score=kept["score"].to_numpy(float),
        )
        nz, ny, nx = size_zyx
        size, base = (nz, ny, nx), tomogram_base_name(name)
        # nothing is known of the tilt series here: export has options for its binning
        context = TomogramContext(voxel_size_zyx=voxel_size_zyx, size_zyx=size, name=base, binning=1.0)
        for one in self.formats:
            if one != "csv":
                default = f"{{name}}_particles_{one}{find_format(one).suffixes[0]}"
                files[one] = folder / FILE_NAMES.get(one, default).format(name=name)
                with warnings.catch_warnings():  # the full table, which loses nothing, lies beside it
                    warnings.simplefilter("ignore", ParticleListWarning)
                    write_particles(particles, files[one], format=one, context=context)
        if self.copick is not None:
            config, wanted, user, session = split_picks_uri(self.copick)
            spacing, run = float(voxel_size_zyx[2]), run_of(config, name)
            write_picks(particles, config, wanted, user, session, spacing, self.overwrite, run=run)
        return files

    def _record(
        self, data: Mapping[str, Any], table: pd.DataFrame, shape_zyx: Sequence[int], files: Mapping[str, Path]
    ) -> dict[str, Any]:
        meta = data["image"].meta
        dropped = table.loc[table["label"] == 0, "dropped_by"].value_counts().to_dict()
        described = (root / "configs" / "metadata.json" for root in (self.bundle_root, Path(__file__).parents[1]))
        metadata = json.loads(next(path for path in described if path.is_file()).read_text(encoding="utf-8"))
        return {
            "bundle": metadata["name"],
            "bundle_version": metadata["version"],
            "inputs": self.inputs({**data, "image": meta["filename_or_obj"]}),
            "tomogram": {
                "shape_zyx": list(shape_zyx),
                "voxel_size_zyx_angstrom": list(meta["voxel_size_zyx"]),
                "origin_xyz_angstrom": list(meta.get("origin_xyz", (0, 0, 0))),
                "header": meta.get("header", {}),
            },
            "conventions": {
                "axis_order": "volumes are (Z, Y, X); columns are named",
                "units": "vox counts voxel centers from 0; angstrom = vox x voxel size, without the header's origin",
                "center": "centroid of the center map's peak; without a peak, centroid of the instance",
                "labels": "0 background; label n of the volume is the row with label n of the table",
            },
            "weights": str(self.weights),
            "command": command_line(),
            "particles": {"kept": int((table["label"] > 0).sum()), "dropped": dropped},
            "files": {key: file.name for key, file in files.items()},
            **({} if self.copick is None else {"copick": self.copick}),
            "warnings": metadata_warnings(meta),
            "computed": dict(data.get("computed") or {}),
            "timings_seconds": dict(data.get("timings") or {}),
            "made_with": {
                "python": platform.python_version(),
                **{one: version(one) for one in ("torch", "monai", "numpy", "scipy", "connected-components-3d")},
            },
        }


class SaveMetrics:
    """Write an engine's metrics to a JSON file when it is done; a MONAI handler.

    Parameters
    ----------
    path : path
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def attach(self, engine: Engine) -> None:
        """Register with ignite."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        metrics = {name: float(value) for name, value in engine.state.metrics.items()}
        with atomic_path(self.path) as temporary:
            Path(temporary).write_text(json.dumps(metrics, indent=2) + "\n")


def command_line() -> str:
    """The command that runs, as one types it: of ``python -m scripts`` only ``__main__.py`` is in the arguments."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"python -m {spec.name.removesuffix('.__main__')}" if spec else Path(sys.argv[0]).name
    return " ".join([program, *sys.argv[1:]])


def _plain(value: Any) -> Any:
    """Turn numpy values into what JSON knows."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return str(value)
