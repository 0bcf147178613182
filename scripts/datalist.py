"""The datalist: which tomograms a run trains and validates on (`<dataset_dir>/dataset.json`)."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from custom_transforms.files.json_object import read_json
from custom_transforms.volumes.read import VOLUME_SUFFIXES
from custom_transforms.volumes.zarr_read import is_zarr
from scripts.sources.copick_labels import labelled_tomograms
from scripts.sources.copick_project import find_tomograms as find_copick_tomograms
from scripts.sources.copick_project import is_copick

__all__ = ["absolute_path", "find_tomograms", "is_tomogram", "load_datalist", "tomograms_in"]

VALIDATION_PART = 0.2  # of the runs of a copick project
PATH_KEYS = ("image", "label", "classes", "particles")


def load_datalist(dataset_dir: str | Path, section: str, repeat: int = 1, fallback: str | None = None) -> list[dict]:
    """Read one section of a dataset's ``dataset.json``, or of a copick project.

    Parameters
    ----------
    dataset_dir : path
        Folder that holds ``dataset.json``, as `prepare` and `simulate` write it. Paths in it are relative to it. Or
        ``copick:CONFIG.json/TYPE@SPACING/OBJECT:USER/SESSION``: the project's tomograms with their instance
        segmentations, of which the last fifth of the runs (one of two to seven) is the validation section.
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
    if is_copick(dataset_dir):
        path, datalist = Path(str(dataset_dir)), _copick_datalist(str(dataset_dir))
    else:
        path = Path(dataset_dir).expanduser() / "dataset.json"
        datalist = _read_datalist(path)
    items = datalist.get(section)
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
    return (items if is_copick(dataset_dir) else [_absolute(item, path) for item in items]) * repeat


def _copick_datalist(uri: str) -> dict[str, list[dict]]:
    items = [
        {"image": absolute_path(one.path), "label": absolute_path(labels.path), "voxel_size": one.voxel_spacing}
        for one, labels in labelled_tomograms(uri)
    ]
    held = max(1, round(VALIDATION_PART * len(items))) if len(items) > 1 else 0
    return {"training": items[: len(items) - held], "validation": items[len(items) - held :]}


def _read_datalist(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected a datalist, found none. Make one with `python -m scripts prepare` or "
            "`python -m scripts simulate`, or name its folder with --dataset_dir."
        )
    datalist = read_json(path)
    if not isinstance(datalist, dict):
        raise ValueError(
            f"{path}: expected an object with lists of tomograms, {{'training': [...], 'validation': [...]}}, "
            f"got a {type(datalist).__name__}. Put the tomograms under the name of their section."
        )
    return datalist


def _absolute(item: Any, path: Path) -> dict:
    if not isinstance(item, dict) or "image" not in item:
        raise ValueError(f"{path}: expected each item as {{'image': ..., 'label': ...}}, got {item!r}.")
    absolute = {}
    for key, value in item.items():
        if key in PATH_KEYS:
            if not isinstance(value, str) or not value:
                raise ValueError(
                    f"{path}: expected a path as {key!r} of each item, got {json.dumps(value)} in "
                    f"{json.dumps(item)[:200]}. Give the file, or leave the entry out."
                )
            value = absolute_path(path.parent / value)
            if not Path(value).exists():
                raise FileNotFoundError(f"{path} names a file that is not there: {value} ({key}).")
        absolute[key] = value
    return absolute


def find_tomograms(dataset_dir: str | Path) -> list[dict]:
    """List the tomograms to detect: the test section of a datalist, or else every tomogram file of a folder.

    Parameters
    ----------
    dataset_dir : path
        A folder, a tomogram (a Zarr is a folder, too), or ``copick:CONFIG.json/TYPE@SPACING``: one tomogram of every
        run of a copick project.

    Returns
    -------
    list of dict
        ``{"image": path, ...}``, sorted by name; at least one. Those of a copick project have their ``voxel_size``.

    Raises
    ------
    FileNotFoundError
        If the folder is missing or holds no tomogram; lists the endings looked for.
    """
    if is_copick(dataset_dir):
        own = find_copick_tomograms(str(dataset_dir))
        return [{"image": absolute_path(one.path), "voxel_size": one.voxel_spacing} for one in own]
    folder = Path(dataset_dir).expanduser()
    if is_tomogram(folder):
        return [{"image": absolute_path(folder)}]
    if (folder / "dataset.json").is_file():
        return load_datalist(folder, "test", fallback="validation")
    found = tomograms_in(folder) if folder.is_dir() else []
    if not found:
        raise FileNotFoundError(
            f"{folder}: expected a folder of tomograms ({' '.join(VOLUME_SUFFIXES)}) or with a dataset.json, "
            "found none. Name it with --dataset_dir."
        )
    return [{"image": absolute_path(path)} for path in found]


def absolute_path(path: str | Path) -> str:
    """Make a path absolute and keep the names of its links: a tomogram is called as its path, not as the link's target.

    Links before a ``..`` alone are followed, since that is the folder above their target.

    Examples
    --------
    >>> absolute_path("/data/run/../TS_01.mrc")
    '/data/TS_01.mrc'
    """
    parts = Path(path).absolute().parts
    followed = max((number for number, part in enumerate(parts, 1) if part == ".."), default=0)
    return str(Path(*parts[:followed]).resolve().joinpath(*parts[followed:]))


def is_tomogram(path: str | Path) -> bool:
    """Tell whether there is a tomogram of this path: a file, or a Zarr (or a level of one), which is a folder."""
    return Path(path).is_file() or (is_zarr(path) and Path(path).is_dir())


def tomograms_in(folder: Path) -> list[Path]:
    """List the tomograms of a folder by their endings (`VOLUME_SUFFIXES`), sorted; other folders are left out."""
    return sorted(
        path for path in folder.iterdir() if path.name.lower().endswith(VOLUME_SUFFIXES) and is_tomogram(path)
    )
