"""The record that a detection leaves, ``<tomogram>.json``: read again, compared with what is asked for now."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, PositiveFloat

from custom_transforms.files.json_object import to_json
from custom_transforms.measuring.particle_filter import mask_path
from scripts.records import model
from scripts.records.model import Record
from scripts.records.weights import file_digest

__all__ = [
    "COMMAND",
    "CONVENTIONS",
    "Counts",
    "DetectionRecord",
    "Evaluation",
    "Inputs",
    "Tomogram",
    "command_line",
    "detections_in",
    "files_of",
    "inputs_of",
    "read_detection",
    "read_metadata",
    "records_in",
    "remove_detection",
    "versions",
]


FILES = ("region", "exclude", "membrane", "teach")  # settings that name a file of the user's
CONVENTIONS = {
    "axis_order": "volumes are (Z, Y, X); columns are named",
    "units": "vox counts voxel centers from 0; angstrom = vox x voxel size, without the header's origin",
    "center": "centroid of the center map's peak; without a peak, centroid of the instance",
    "labels": "0 background; label n of the volume is the row with label n of the table",
}


class Metadata(model.Record):
    """What a detection's record says of its bundle."""

    name: str
    version: str


def _three(value: list[Any]) -> list[Any]:
    if len(value) != 3:
        raise ValueError("three numbers (Z, Y, X)")
    return value


class Source(Record):
    """The tomogram's file, with the voxel size and contrast that its datalist has for it."""

    path: str | None = None
    contrast: str | None = None


class Inputs(Record):
    """What a detection depends on; two detections with the same are the same. Files that go with it are extra.

    ``edits`` are ids of the config below the settings that were replaced; None where a record of an earlier version
    does not say.
    """

    tomogram: Source = Source()
    settings: dict[str, Any] = {}
    edits: dict[str, Any] | None = None
    weights_sha256: str | None = None


class Tomogram(Record):
    """What is known of the volume: shape, and Å per voxel."""

    shape_zyx: Annotated[list[int], AfterValidator(_three)]
    voxel_size_zyx_angstrom: Annotated[list[PositiveFloat], AfterValidator(_three)]
    origin_xyz_angstrom: list[float | None] = []
    header: dict[str, Any] = {}


class Counts(Record):
    """How many particles were kept, how many each filter dropped, and how many of those kept are of each class."""

    kept: int | None = None
    dropped: dict[str, int] = {}
    by_class: dict[str, int] = {}


class Evaluation(Record):
    """The evaluation that the report showed last."""

    folder: str
    matches_sha256: str


class DetectionRecord(Record):
    """How the files of one tomogram were made; the entries stand in the order in which a file has them.

    Only what the first version wrote and later ones read must be there.
    """

    bundle: str | None = None
    bundle_version: str | None = None
    inputs: Inputs
    tomogram: Tomogram
    conventions: dict[str, str] = {}
    weights: str | None = None
    command: str | None = None
    particles: Counts
    classes: dict[str, str] = {}  # names by the numbers in <tomogram>_classes.mrc
    class_of: dict[str, str] = {}  # where the training merged classes: that of each name of its data set
    files: dict[str, str]
    copick: str | None = None
    warnings: list[str] = []
    computed: dict[str, Any] = {}
    timings_seconds: dict[str, float] = {}
    made_with: dict[str, str] = {}
    evaluation: Evaluation | None = None

    @property
    def contrast(self) -> str:
        """What protein looked like in the tomogram: dark or bright."""
        return self.inputs.tomogram.contrast or self.inputs.settings.get("contrast") or "dark"


def detections_in(folder: Path) -> list[Path]:
    """The folders ``<tomogram>`` that `detect` wrote into its output folder, by name."""
    tables = folder.glob("*/*_particles.csv")
    return sorted(one.parent for one in tables if one.name == f"{one.parent.name}_particles.csv")


def records_in(folder: Path) -> list[Path]:
    """The records of the finished among the `detections_in` a folder; each is in the folder of its tomogram."""
    records = [run / f"{run.name}.json" for run in detections_in(folder)]
    return [one for one in records if one.is_file()]


def read_detection(record: Path) -> DetectionRecord:
    """Read the record of an earlier detection.

    Raises
    ------
    FileNotFoundError, ValueError
        If it is missing, damaged, or not what `SaveDetectiond` writes.
    """
    return model.read(DetectionRecord, record, "the record of a detection", "Remove it or --overwrite to detect again.")


def file_state(path: str | Path) -> dict[str, Any]:
    """Path, bytes and time of a file, by which a later run sees whether it is still the same."""
    status = Path(path).stat()
    return {"path": str(path), "bytes": status.st_size, "modified": status.st_mtime}


def inputs_of(item: Mapping[str, Any], settings: Mapping[str, Any], weights: Path, edits: Mapping[str, Any]) -> Inputs:
    """What the detection of an item of a datalist depends on; its own voxel size and contrast count, too.

    Raises
    ------
    FileNotFoundError
        If the tomogram, or a file that goes with it (region, exclude, membrane, teach), is not there.
    """
    own: dict[str, Any] = {}
    if item.get("voxel_size") is not None:
        own["voxel_size"] = np.asarray(item["voxel_size"], dtype=float).ravel()
    if item.get("contrast") is not None:
        own["contrast"] = str(item["contrast"])
    named = [name for name in FILES if settings.get(name) is not None]
    content = {
        "tomogram": {**file_state(item["image"]), **own},
        **{name: file_state(mask_path(str(settings[name]), item["image"])) for name in named},
        "settings": settings,
        "edits": edits,
        "weights_sha256": file_sha256(weights, weights.stat().st_mtime),
    }
    return Inputs(**to_json(content))


def files_of(record: Path, made: DetectionRecord) -> dict[str, str]:
    """The files of a detection by what they are, also the page that ``report`` made later."""
    return {"report": f"{record.stem}_report.html", **made.files}


def remove_detection(record: Path) -> None:
    """Remove a record, then the files it lists in its own folder: a new detection may not write all of them."""
    try:
        files = tuple(files_of(record, read_detection(record)).values())
    except (FileNotFoundError, ValueError):  # nobody knows what a damaged record has listed
        files = ()
    record.unlink(missing_ok=True)
    for name in files:
        if name == Path(name).name:
            (record.parent / name).unlink(missing_ok=True)


COMMAND: ContextVar[str] = ContextVar("command", default="")


@lru_cache(maxsize=8)
def file_sha256(path: Path, modified: float) -> str:
    """Hash a file; ``modified`` only renews the cache."""
    return file_digest(path)


def read_metadata(*roots: Path) -> Metadata:
    """Read the metadata of the first bundle that has some."""
    paths = [root / "configs" / "metadata.json" for root in roots]
    path = next(filter(Path.is_file, paths), paths[0])
    return model.read(Metadata, path, "the bundle's metadata", "Get the bundle anew.")


def command_line() -> str:
    """The command that runs, as one types it: of ``python -m scripts`` only ``__main__.py`` is in the arguments.

    A worker's is the one that gave it the work (`COMMAND`).
    """
    if COMMAND.get():
        return COMMAND.get()
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"python -m {spec.name.removesuffix('.__main__')}" if spec else Path(sys.argv[0]).name
    return " ".join([program, *sys.argv[1:]])


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a result may depend on."""
    packages = ("torch", "monai", "numpy", "scipy", "connected-components-3d")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
