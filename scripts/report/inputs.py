"""What a report is made from: the files of one detection."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from custom_transforms.volumes.checks import Notes
from custom_transforms.volumes.mrc_read import MRC_SUFFIXES, read_mrc
from custom_transforms.volumes.zarr_read import is_zarr, open_zarr
from scripts.particles.csv_table import TABLE_COLUMNS, plain_text
from scripts.records.detection import DetectionRecord, detections_in, read_detection
from scripts.report import center_map
from scripts.report.center_map import CenterMap
from scripts.sources.tomograms import is_tomogram

__all__ = ["NO_CLASS_COLOUR", "RunData", "load_run", "open_volume", "run_prefix"]

CLASS_COLOURS = (  # seen on the dark slices and on white plots alike
    "#2f9be6", "#f08c1e", "#3fb950", "#e4579b", "#c9a800", "#9d7bf0", "#e5533d", "#1fb5ad", "#a9783f",
)  # fmt: skip
NO_CLASS_COLOUR = "#8a949e"
_TEXTS = ("class", "dropped_by", "runner_up")


@dataclass
class RunData:
    """One detection, ready to be shown. Volumes are (Z, Y, X), possibly memory-mapped; None means not at hand."""

    prefix: Path
    particles: pd.DataFrame
    record: DetectionRecord
    tomogram: np.ndarray | None = None
    instances: np.ndarray | None = None
    center_map: CenterMap | None = None
    notes: list[str] = field(default_factory=list)  # what could not be shown, and why

    @property
    def name(self) -> str:
        """The tomogram's name."""
        return self.prefix.name

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """The shape of the volumes."""
        z, y, x = self.record.tomogram.shape_zyx
        return z, y, x

    @property
    def voxel_size_zyx(self) -> np.ndarray:
        """Å along Z, Y, X."""
        return np.array(self.record.tomogram.voxel_size_zyx_angstrom)

    @property
    def classes(self) -> dict[str, str]:
        """The colour of each class, the same for all tomograms of a network; empty if there is only one class."""
        names = list(self.record.classes.values()) or sorted(set(self.particles["class"]) - {""})
        return {n: CLASS_COLOURS[k % len(CLASS_COLOURS)] for k, n in enumerate(names)} if len(names) > 1 else {}


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


def open_volume(path: Path, record: DetectionRecord | None = None) -> np.ndarray:
    """Open a volume; plain MRC files are memory-mapped.

    Of the tomogram of a ``record`` the voxel size chooses the level of a Zarr, and bytes are taken as they were then.
    """
    settings: dict[str, Any] = {} if record is None else record.inputs.settings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the run has recorded what is odd about the file
        if path.name.lower().endswith(MRC_SUFFIXES):
            return read_mrc(path, settings.get("signed"), Notes()).array
        if is_zarr(path):
            return np.asarray(
                open_zarr(path, None if record is None else np.array(record.tomogram.voxel_size_zyx_angstrom))
            )
        from custom_transforms.volumes.read import read_tomogram  # seconds to import, because of MONAI

        return read_tomogram(path, voxel_size=1.5, fill_nonfinite=True)[0]


def load_run(
    run_dir_or_prefix: str | Path, tomogram: str | Path | None = None, record: DetectionRecord | None = None
) -> RunData:
    """Collect what a report shows from the files of a detection.

    Parameters
    ----------
    run_dir_or_prefix : path
        As `run_prefix` takes it.
    tomogram : path, optional
        By default the one that the record names.
    record : DetectionRecord, optional
        By default the one beside the files.

    Raises
    ------
    FileNotFoundError
        If there is no record, or no particle table.
    ValueError
        If one of both is damaged, or volumes have other shapes than the record says.
    """
    prefix = run_prefix(run_dir_or_prefix)
    record = record or read_detection(prefix.with_name(f"{prefix.name}.json"))
    run = RunData(prefix=prefix, particles=_particles(prefix.with_name(f"{prefix.name}_particles.csv")), record=record)
    path = _find_tomogram(run) if tomogram is None else Path(tomogram)
    run.tomogram = None if path is None else _checked(open_volume(path, record), path, run)
    labels = prefix.with_name(f"{prefix.name}_instances.mrc")
    run.instances = _checked(open_volume(labels), labels, run) if labels.is_file() else None
    try:
        run.center_map = center_map.read(prefix.with_name(center_map.NAME.format(name=prefix.name)))
    except FileNotFoundError:
        run.notes.append("No center map was kept with this detection, so the page shows none.")
    except ValueError as error:
        run.notes.append(f"The page shows no center map: {error}")
    return run


def _particles(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(
            f"report: expected the particle table {str(path)!r}, which does not exist. "
            "Give the folder of one tomogram that `python -m scripts detect` has written."
        )
    particles = pd.read_csv(path, dtype=dict.fromkeys(_TEXTS, str))
    missing = [column for column in TABLE_COLUMNS if column not in particles.columns]
    if missing:
        raise ValueError(
            f"{path}: expected the particle table that detect wrote, {', '.join(missing)} missing "
            f"(found {', '.join(map(str, particles.columns[:8]))}). Detect again with --overwrite."
        )
    for column in (name for name in _TEXTS if name in particles):
        particles[column] = particles[column].fillna("").map(plain_text)
    return particles


def _find_tomogram(run: RunData) -> Path | None:
    recorded = run.record.inputs.tomogram.path
    if recorded is not None and is_tomogram(recorded):
        return Path(recorded)
    where = "" if recorded is None else f" {recorded}"
    run.notes.append(f"The tomogram{where} is not at hand any more, so the page shows the found particles only.")
    return None


def _checked(volume: np.ndarray, path: Path, run: RunData) -> np.ndarray:
    if volume.shape != run.shape_zyx:
        raise ValueError(
            f"{path}: expected a volume of the shape (Z, Y, X) {run.shape_zyx} of this detection, got {volume.shape}. "
            "Give the tomogram it was made from."
        )
    return volume
