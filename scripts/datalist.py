"""The datalist: which tomograms a run trains and validates on (`<dataset_dir>/dataset.json`)."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

__all__ = ["TOMOGRAM_SUFFIXES", "find_tomograms", "load_datalist"]

TOMOGRAM_SUFFIXES = (".mrc", ".rec", ".map", ".mrc.gz", ".mrc.bz2", ".tif", ".tiff", ".nii", ".nii.gz")
PATH_KEYS = ("image", "label", "classes", "particles")


def load_datalist(dataset_dir: str | Path, section: str, repeat: int = 1, fallback: str | None = None) -> list[dict]:
    """Read one section of a dataset's ``dataset.json``.

    Parameters
    ----------
    dataset_dir : path
        Folder that holds ``dataset.json``, as `prepare` and `simulate` write it. Paths in it are relative to it.
    section : str
        ``"training"``, ``"validation"`` or ``"test"``.
    repeat : int
        How often each item appears: a tomogram gives one random crop per appearance in an epoch.
    fallback : str, optional
        Section to use, with a warning, when ``section`` is absent or empty.

    Returns
    -------
    list of dict
        Items with absolute paths; at least one.

    Raises
    ------
    FileNotFoundError
        If the datalist or a file it names is missing.
    ValueError
        If it is not JSON of this form, or the section is empty.
    """
    path = Path(dataset_dir).expanduser() / "dataset.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected a datalist, found none. Make one with `python -m scripts prepare` or "
            "`python -m scripts simulate`, or name its folder with --dataset_dir."
        )
    try:
        datalist = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected JSON, but line {error.lineno} is not: {error.msg}.") from error
    items = datalist.get(section) if isinstance(datalist, dict) else None
    if not items and fallback is not None:
        logging.getLogger(__name__).warning(
            "%s has no %s tomogram: the %s ones are used instead. Scores on them flatter the model.",
            path,
            section,
            fallback,
        )
        return load_datalist(dataset_dir, fallback, repeat)
    if not isinstance(items, list) or not items:
        known = ", ".join(key for key, value in datalist.items() if isinstance(value, list) and value)
        raise ValueError(
            f"{path}: expected a non-empty list {section!r}, found sections: {known or 'none'}. "
            "Add tomograms to it, each as {'image': ..., 'label': ...}."
        )
    return [_absolute(item, path) for item in items] * repeat


def _absolute(item: Any, path: Path) -> dict:
    if not isinstance(item, dict) or "image" not in item:
        raise ValueError(f"{path}: expected each item as {{'image': ..., 'label': ...}}, got {item!r}.")
    absolute = {}
    for key, value in item.items():
        if key in PATH_KEYS:
            value = str((path.parent / value).resolve())
            if not Path(value).exists():
                raise FileNotFoundError(f"{path} names a file that is not there: {value} ({key}).")
        absolute[key] = value
    return absolute


def find_tomograms(dataset_dir: str | Path) -> list[dict]:
    """List the tomograms to detect: the test section of a datalist, or else every tomogram file of a folder.

    Returns
    -------
    list of dict
        ``{"image": path, ...}``, sorted by name; at least one.

    Raises
    ------
    FileNotFoundError
        If the folder is missing or holds no tomogram; lists the endings looked for.
    """
    folder = Path(dataset_dir).expanduser()
    if (folder / "dataset.json").is_file():
        return load_datalist(folder, "test", fallback="validation")
    found = sorted(path for path in folder.glob("*") if path.name.lower().endswith(TOMOGRAM_SUFFIXES))
    if not found:
        raise FileNotFoundError(
            f"{folder}: expected a folder of tomograms ({' '.join(TOMOGRAM_SUFFIXES)}) or with a dataset.json, "
            "found none. Name it with --dataset_dir."
        )
    return [{"image": str(path.resolve())} for path in found]
