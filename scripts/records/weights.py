"""The record beside a weights file, ``model.json``: what it was trained on, and the settings it detects with."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from custom_transforms.files.json_object import read_object

__all__ = ["file_digest", "read_record", "recorded_settings", "recorded_voxel_size"]

MEND = "Correct it there, or remove the file."


def read_record(weights: str | Path, digest: str | None = None) -> dict[str, Any] | None:
    """Read the ``.json`` beside a weights file; None if there is none.

    Parameters
    ----------
    weights : path
        The ``.pt`` file.
    digest : str, optional
        sha256 of the weights, where it is known already.

    Raises
    ------
    ValueError
        If it is not a JSON object, names the sha256 of other weights, or holds what no training and no join writes.
    """
    weights = Path(weights).expanduser()
    path = weights.with_suffix(".json")
    if not path.is_file():
        return None
    record = read_object(path, "the record of weights")
    if "sha256" in record:
        found = digest or file_digest(weights)
        if record["sha256"] != found:
            raise ValueError(
                f"{path}: belongs to other weights than {weights} (its sha256 begins {str(record['sha256'])[:8]}, "
                f"the file's {found[:8]}). Join the two runs again with `python -m scripts join`, or remove it."
            )
    _check_types(path, record)
    return record


def _check_types(path: Path, record: Mapping[str, Any]) -> None:
    """Refuse a damaged record here, so that nobody who uses one needs to doubt its types."""
    for part in ("settings", "training"):
        if not isinstance(record.get(part, {}), dict):
            raise ValueError(f"{path}: {part}: expected an object, got {json.dumps(record[part])}. {MEND}")
    sizes = record.get("training", {}).get("voxel_size")  # a list where tomograms differ
    named = [("training.voxel_size", size) for size in (sizes if isinstance(sizes, list) else [sizes])]
    for name, size in [*named, ("settings.voxel_size_model", record.get("settings", {}).get("voxel_size_model"))]:
        number = isinstance(size, (int, float)) and not isinstance(size, bool)
        if size is not None and not (number and 0 < size < math.inf):
            raise ValueError(f"{path}: {name}: expected Å per voxel above 0, or null, got {json.dumps(size)}. {MEND}")


def file_digest(path: str | Path) -> str:
    """The sha256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recorded_settings(record: Mapping[str, Any] | None) -> dict[str, Any]:
    """Ids of ``configs/inference.json`` and their values that belong to the weights: voxel size, thresholds.

    Examples
    --------
    >>> recorded_settings({"settings": {"voxel_size_model": 10.0, "mask_threshold": 0.4}})
    {'voxel_size_model': 10.0, 'mask_threshold': 0.4}
    >>> recorded_settings({"metric": "val_center_f1", "training": {"voxel_size": 8.0}})  # weights of one run
    {'voxel_size_model': 8.0}
    """
    record = record or {}
    size = record.get("training", {}).get("voxel_size")
    trained = {"voxel_size_model": float(size)} if isinstance(size, (int, float)) else {}
    return trained | {key: value for key, value in record.get("settings", {}).items() if not key.startswith("_")}


def recorded_voxel_size(record: Mapping[str, Any] | None) -> float | None:
    """Å per voxel that weights were trained at, of a joint record or of a single run's; None if it is not said."""
    value = recorded_settings(record).get("voxel_size_model")
    return None if value is None else float(value)
