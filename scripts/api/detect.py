"""Detect, for notebooks: one tomogram in, labels and a table out."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from custom_transforms.units import as_voxel_size_zyx
from custom_transforms.volumes.read import read_tomogram
from scripts.api.volumes import as_file, is_path
from scripts.detection.detector import Detector
from scripts.detection.single import detect_one
from scripts.records.detection import read_detection
from scripts.sources.tomograms import find_tomograms

__all__ = ["Detection", "detect"]

TEXT_COLUMNS = ("class", "runner_up", "dropped_by", "flags")


@dataclass(frozen=True)
class Detection:
    """What was found in one tomogram.

    Attributes
    ----------
    labels : ndarray, shape (Z, Y, X), int32
        0 is background; particle n has label n.
    particles : DataFrame
        A row per particle: ``label``, ``class``, center (``x_vox`` ..., ``x_angstrom`` ...), ``score``, volume,
        ``touches_border``, ``neighbors``; with classes ``class_score``, ``runner_up`` and ``runner_up_score``.
    dropped : DataFrame
        The particles that a filter dropped, with the reason in ``dropped_by``; they are not in ``labels``.
    voxel_size_zyx : ndarray, shape (3,)
        Å along Z, Y, X.
    record : dict
        How it was made: settings, weights, versions, warnings, conventions.
    folder : Path or None
        Where the files are, if they were to be kept.
    """

    labels: np.ndarray
    particles: pd.DataFrame
    dropped: pd.DataFrame
    voxel_size_zyx: np.ndarray
    record: dict[str, Any]
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.particles)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.labels.shape))
        size = " x ".join(f"{side:g}" for side in dict.fromkeys(self.voxel_size_zyx.tolist()))
        dropped = f", {len(self.dropped)} dropped" if len(self.dropped) else ""
        return f"<Detection: {len(self)} particles{dropped} in {shape} voxels of {size} Å>"


def detect(
    tomogram: str | Path | np.ndarray,
    *,
    voxel_size: float | tuple[float, float, float] | None = None,
    output_dir: str | Path | None = None,
    bundle: str | Path | None = None,
    trust: bool = False,
    config: str | Path | Sequence[str | Path] = (),
    memory: float | None = None,
    stream: bool | None = None,
    **settings: Any,
) -> Detection:
    """Find the particles of a tomogram, separate them, and give each its own label.

    Parameters
    ----------
    tomogram : path or ndarray, shape (Z, Y, X)
        A file of any format that ``python -m scripts detect`` takes, or an array or tensor.
    voxel_size : float or sequence of 3 floats (Z, Y, X), optional
        Å. An array needs it; of a file it replaces the header's.
    output_dir : path, optional
        Keep the files in ``<output_dir>/<tomogram>``, as the command does; a tomogram that is done there with the same
        settings is read, not detected again. By default no file is kept.
    bundle : path, optional
        Another bundle, zip or folder, whose config and weights are used. Its config is code.
    trust : bool
        Let that bundle run here, from now on.
    config : path or sequence of paths
        JSON with settings, laid over ``configs/inference.json``, as ``calibrate`` writes it.
    memory, stream
        GiB that may be used, and whether volumes go through files instead of memory.
    **settings
        Any id of ``configs/inference.json``: ``particle_diameter``, ``center_threshold``, ``contrast``, ``weights``,
        ``device``, ``tile``, ``tta`` ...

    Returns
    -------
    Detection

    Raises
    ------
    FileNotFoundError, ValueError
        If the tomogram, a setting or the weights are not there or cannot be; names it.

    Examples
    --------
    >>> found = detect("tomograms/TS_01.mrc", particle_diameter=250)  # doctest: +SKIP
    >>> found.particles[["label", "x_angstrom", "y_angstrom", "z_angstrom", "score"]]  # doctest: +SKIP
    """
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
    if voxel_size is not None:
        settings["voxel_size"] = as_voxel_size_zyx(voxel_size).tolist()
    with tempfile.TemporaryDirectory(prefix="detect_") as temporary:
        if output_dir is None:
            settings = {"formats": ["csv"], "report": False, **settings}
        kept = Path(temporary if output_dir is None else output_dir).expanduser()
        configs = [config] if isinstance(config, (str, Path)) else list(config)
        detector = Detector({**settings, "output_dir": str(kept)}, configs, memory, stream, bundle=bundle, trust=trust)
        named = str(tomogram) if is_path(tomogram) else str(
            as_file(tomogram, Path(temporary) / "array.mrc", "tomogram", voxel_size)
        )  # fmt: skip
        items = find_tomograms(named)
        if len(items) != 1:
            raise ValueError(f"{named}: expected one tomogram, got {len(items)}. Call detect for each of them.")
        detect_one(detector, items[0])
        return _read(detector.save.record(items[0]["image"]), keep=output_dir is not None)


def _read(record: Path, keep: bool) -> Detection:
    """Read the files of a finished detection."""
    made = read_detection(record)
    labels, meta = read_tomogram(record.parent / made.files["instances"], check="labels")
    table = pd.read_csv(record.parent / made.files["csv"], dtype=dict.fromkeys(TEXT_COLUMNS, str))
    text = [column for column in TEXT_COLUMNS if column in table]
    table[text] = table[text].fillna("")
    chosen = table["label"] > 0
    return Detection(
        np.array(labels, dtype=np.int32),  # a copy: the file behind it may go
        table[chosen].reset_index(drop=True),
        table[~chosen].reset_index(drop=True),
        as_voxel_size_zyx(meta["voxel_size_zyx"]),
        made.content(),
        record.parent if keep else None,
    )
