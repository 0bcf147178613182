"""What a report is made from: the files of one run, or the arrays that `detect` still has in memory."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from custom_transforms.units import as_voxel_size_zyx
from custom_transforms.volumes.zarr_read import is_zarr, open_zarr
from scripts.particles.csv_table import plain_text
from scripts.records.detection import detections_in
from scripts.report.lookup import find_key

__all__ = ["RunData", "load_run", "open_volume", "recorded_input", "run_prefix"]

VolumeLike = np.ndarray | str | Path | None


@dataclass
class RunData:
    """One detection, ready to be shown. Volumes are (Z, Y, X), possibly memory-mapped; None means not at hand."""

    prefix: Path
    particles: pd.DataFrame
    info: dict[str, Any]
    voxel_size_zyx: np.ndarray
    voxel_size_known: bool
    tomogram: np.ndarray | None = None
    instances: np.ndarray | None = None
    center_map: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)  # what could not be shown, and why

    @property
    def name(self) -> str:
        """The tomogram's name."""
        return self.prefix.name

    @property
    def shape_zyx(self) -> tuple[int, int, int] | None:
        """The shape of the volumes, None if there is no volume."""
        for volume in (self.tomogram, self.instances, self.center_map):
            if volume is not None:
                z, y, x = volume.shape
                return z, y, x
        return None


def run_prefix(run_dir_or_prefix: str | Path) -> Path:
    """Return ``<folder>/<tomogram>`` for a run folder ``<output_dir>/<tomogram>/`` or such a prefix itself.

    Raises
    ------
    FileNotFoundError
        If neither the folder nor the folder of the prefix exists.
    ValueError
        If a folder holds more than one run and none has the folder's name, or the folders of runs; names them.
    """
    path = Path(run_dir_or_prefix)
    if not path.is_dir():
        if not path.absolute().parent.is_dir():
            raise FileNotFoundError(
                f"report: expected the folder of one detection, <output_dir>/<tomogram>, got {str(path)!r}, "
                "which does not exist. Run `python -m scripts detect` first."
            )
        return path
    names = sorted(p.name.removesuffix("_particles.csv") for p in path.glob("*_particles.csv"))
    below = [] if names else list(map(str, detections_in(path)))
    if below:
        raise ValueError(
            f"report: expected the folder of one detection, {str(path)!r} holds those of {len(below)}: "
            f"{', '.join(below[:5])}{', ...' if len(below) > 5 else ''}. Give one of them."
        )
    folder_name = path.resolve().name
    if not names or folder_name in names:
        return path / folder_name
    if len(names) > 1:
        raise ValueError(
            f"report: expected one run in {str(path)!r}, found {len(names)}: {', '.join(names[:5])}. "
            f"Give one of them, for example {str(path / names[0])!r}."
        )
    return path / names[0]


def open_volume(volume: VolumeLike, name: str, voxel_size_zyx: np.ndarray | None = None) -> np.ndarray | None:
    """Give an array (Z, Y, X) for an array or a path; plain MRC files are memory-mapped.

    ``voxel_size_zyx`` (Å) chooses the level of a Zarr; None takes the finest.

    What is no array, but has a shape and is read by slices, stays what it is.

    Raises
    ------
    ValueError
        If it is not 3D, or the file is damaged.
    """
    if volume is None:
        return None
    if isinstance(volume, (str, Path)):
        array = _read(Path(volume), voxel_size_zyx)
    else:
        array = volume if hasattr(volume, "shape") and not hasattr(volume, "__array__") else np.asarray(volume)
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3:
        raise ValueError(f"report: expected a 3D {name} (Z, Y, X), got shape {array.shape}. Give one volume.")
    return array


def _read(path: Path, voxel_size_zyx: np.ndarray | None) -> np.ndarray:
    from custom_transforms.volumes.checks import Notes
    from custom_transforms.volumes.mrc_read import read_mrc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the run has recorded what is odd about the file
        if path.name.lower().removesuffix(".gz").removesuffix(".bz2").endswith((".mrc", ".rec", ".map")):
            return read_mrc(path, None, Notes()).array
        if is_zarr(path):
            return np.asarray(open_zarr(path, voxel_size_zyx))
        from custom_transforms.volumes.read import read_tomogram  # seconds to import, because of MONAI

        return read_tomogram(path, voxel_size=1.5, fill_nonfinite=True)[0]


def _voxel_size(info: dict[str, Any], particles: pd.DataFrame) -> tuple[np.ndarray, bool]:
    given = find_key(info, "voxel_size_zyx_angstrom", "voxel_size_zyx", "voxel_size_angstrom", "voxel_size")
    if given is not None and np.min(given) > 0:
        return as_voxel_size_zyx(given), True
    sizes = []
    for axis in "zyx":
        if not {f"{axis}_angstrom", f"{axis}_vox"} <= set(particles.columns):
            return np.ones(3), False
        voxels = particles[f"{axis}_vox"].to_numpy(float)
        far = np.abs(voxels) > 0.5  # Å = index x voxel size: any index that is not near 0 gives the size
        if not far.any():
            return np.ones(3), False
        sizes.append(float(np.median(particles[f"{axis}_angstrom"].to_numpy(float)[far] / voxels[far])))
    return as_voxel_size_zyx(np.array(sizes)), True


def _check_particles(particles: pd.DataFrame) -> pd.DataFrame:
    missing = [c for c in ("x_vox", "y_vox", "z_vox") if c not in particles.columns]
    if missing:
        raise ValueError(
            f"report: expected the particle table's columns x_vox, y_vox and z_vox, {', '.join(missing)} missing "
            f"(found {', '.join(map(str, particles.columns[:8]))}). Give the table that detect wrote."
        )
    particles = particles.reset_index(drop=True).copy()
    defaults = {"particle_id": np.arange(1, len(particles) + 1), "label": 0, "class": "", "dropped_by": ""}
    for column, value in defaults.items():
        if column not in particles.columns:
            particles[column] = particles["particle_id"] if column == "label" else value
    for column in ("class", "dropped_by"):
        particles[column] = particles[column].fillna("").astype(str)
    particles["label"] = particles["label"].fillna(0).astype(int)
    return particles


def recorded_input(info: dict[str, Any]) -> str | None:
    """Return the path of the tomogram that a run recorded; None if it did not.

    Examples
    --------
    >>> recorded_input({"inputs": {"tomogram": {"path": "TS_01.mrc"}}})
    'TS_01.mrc'
    """
    inputs = info.get("inputs")
    own = inputs.get("tomogram") if isinstance(inputs, dict) else None
    for found in (own, find_key(info, "input_path", "input", "filename_or_obj", "tomogram")):
        if isinstance(found, dict):
            found = found.get("path")
        if isinstance(found, str):
            return found
    return None


def _find_tomogram(given: VolumeLike, info: dict[str, Any], notes: list[str]) -> VolumeLike:
    if given is not None:
        return given
    recorded = recorded_input(info)
    if recorded is None:
        notes.append("No tomogram was given, so the page shows the found particles only.")
    elif not (Path(recorded).is_file() or (is_zarr(recorded) and Path(recorded).is_dir())):
        notes.append(f"The tomogram {recorded} is not at hand any more, so the page shows the found particles only.")
    else:
        return recorded
    return None


def load_run(
    run_dir_or_prefix: str | Path,
    tomogram: VolumeLike = None,
    instances: VolumeLike = None,
    center_map: VolumeLike = None,
    particles: pd.DataFrame | None = None,
    info: dict[str, Any] | None = None,
) -> RunData:
    """Collect what a report shows; whatever is not given is read from the run's files.

    Raises
    ------
    FileNotFoundError
        If there is no particle table, given or on disk.
    ValueError
        If volumes have different shapes, or the table lacks its positions.
    """
    prefix = run_prefix(run_dir_or_prefix)
    files = {key: prefix.with_name(prefix.name + end) for key, end in _FILES.items()}
    if info is None:
        info = json.loads(files["info"].read_text("utf-8")) if files["info"].is_file() else {}
    if particles is None:
        if not files["particles"].is_file():
            raise FileNotFoundError(
                f"report: expected the particle table {str(files['particles'])!r}, which does not exist. "
                "Give the folder of one tomogram that `python -m scripts detect` has written."
            )
        particles = pd.read_csv(files["particles"], keep_default_na=True, dtype={"class": str, "dropped_by": str})
        if "class" in particles:
            particles["class"] = particles["class"].map(plain_text)
    particles = _check_particles(particles)
    if instances is None and files["instances"].is_file():
        instances = files["instances"]
    if center_map is None and files["center_map"].is_file():
        center_map = files["center_map"]
    notes: list[str] = []
    voxel_size, known = _voxel_size(info, particles)
    run = RunData(
        prefix=prefix,
        particles=particles,
        info=info,
        voxel_size_zyx=voxel_size,
        voxel_size_known=known,
        tomogram=open_volume(_find_tomogram(tomogram, info, notes), "tomogram", voxel_size if known else None),
        instances=open_volume(instances, "label volume"),
        center_map=open_volume(center_map, "center map"),
        notes=notes,
    )
    _check_shapes(run)
    return run


_FILES = {
    "particles": "_particles.csv",
    "instances": "_instances.mrc",
    "center_map": "_center_map.mrc",
    "info": ".json",
}


def _check_shapes(run: RunData) -> None:
    volumes = {"tomogram": run.tomogram, "instances": run.instances, "center map": run.center_map}
    shapes = {name: volume.shape for name, volume in volumes.items() if volume is not None}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(
            f"report: expected volumes of one shape (Z, Y, X), got {listed}. Give the tomogram this run was made from."
        )
