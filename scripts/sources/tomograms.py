"""The tomograms that a user names: files, folders, patterns, datalists and copick projects, as items of a datalist."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from custom_transforms.files.names import check_name, tomogram_name, tomogram_stem
from custom_transforms.volumes.read import VOLUME_SUFFIXES
from custom_transforms.volumes.zarr_read import is_zarr
from scripts.console import note
from scripts.records.detection import detections_in
from scripts.sources import copick_project
from scripts.sources.copick_project import is_copick
from scripts.sources.datalists import Datalist, read_datalist
from scripts.sources.detections import is_detection
from scripts.sources.file_kinds import LABEL_WORDS, is_called
from scripts.sources.named import absolute_path, each_once, listed, named_paths

__all__ = ["find_tomograms", "is_tomogram", "pick_section", "tomograms_in"]

OVERVIEW = ("overview.html", "overview.csv")  # of earlier detections
WHAT = "tomograms (files, folders, patterns, a dataset.json, or copick:CONFIG.json/TYPE@SPACING)"


def find_tomograms(
    named: str | Path | Iterable[str | Path],
    name_of: Callable[[str], str] = tomogram_name,
    sections: Sequence[str] | None = ("test", "validation", "training"),
    keys: Sequence[str] | None = ("image", "voxel_size", "contrast"),
) -> list[dict[str, Any]]:
    """List the tomograms that a user names.

    Parameters
    ----------
    named : path or iterable of paths
        Tomogram files (a Zarr is a folder, too); folders, of which `tomograms_in` lists the files; patterns; a datalist
        or its folder; ``copick:CONFIG.json/TYPE@SPACING``, one tomogram of every run. Folders of earlier detections
        among them are left out, with a note.
    name_of : callable
        What the outputs of a tomogram are called.
    sections : sequence of str, optional
        Of a datalist the first of these that holds tomograms; None takes all of them.
    keys : sequence of str, optional
        What is taken of an item beside others that a datalist may hold, where it has it; None takes everything.

    Returns
    -------
    list of dict
        ``{"image": absolute path, ...}``; at least one, each once.

    Raises
    ------
    FileNotFoundError, ValueError
        If nothing is named, a name leads to no tomogram, or two tomograms have one name.
    """
    names = [named] if isinstance(named, (str, os.PathLike)) else list(named)
    if not names:
        raise ValueError(f"expected {WHAT}, none is named. See --help.")
    earlier: list[str] = []
    found = [item for name in names for item in _items(name, sections, earlier)]
    if not found:
        raise ValueError(
            f"{listed(map(str, names))}: expected {WHAT}, found earlier detections. Name the tomograms they are of."
        )
    if earlier:
        note(f"earlier detections are no tomograms, left out: {listed(earlier)}")
    for item in found:
        check_name(name_of(item["image"]), item["image"])
    items = each_once(found, lambda item: name_of(item["image"]), lambda item: item["image"], "tomograms").values()
    return [{key: item[key] for key in keys or item if item.get(key) is not None} for item in items]


def _items(name: str | Path, sections: Sequence[str] | None, earlier: list[str]) -> list[dict[str, Any]]:
    """The items of one name; what is of earlier detections is put into ``earlier``."""
    if is_copick(name):
        runs = copick_project.find_tomograms(str(name))
        return [{"image": absolute_path(one.path), "voxel_size": one.voxel_spacing} for one in runs]
    items: list[dict[str, Any]] = []
    for path in named_paths(name, WHAT):
        if path.name in OVERVIEW or is_detection(path):
            earlier.append(str(path))
        elif path.is_file() and path.suffix.lower() == ".json" or (path / "dataset.json").is_file():
            datalist = read_datalist(path)
            items += pick_section(datalist, sections) if sections else datalist.every_item()
        elif is_tomogram(path):
            items.append({"image": absolute_path(path)})
        elif found := tomograms_in(path):
            items += [{"image": absolute_path(one)} for one in found]
        elif detections_in(path):
            earlier.append(str(path))
        else:
            raise FileNotFoundError(
                f"{path}: expected a folder of tomograms ({' '.join(VOLUME_SUFFIXES)}) or with a dataset.json, found "
                "none in it."
            )
    return items


def pick_section(datalist: Datalist, sections: Sequence[str]) -> list[dict[str, Any]]:
    """The items of the first section that holds some; a warning says so if it is not the first that was wanted.

    Raises
    ------
    ValueError
        If all are empty; lists the sections there are.
    """
    for section in sections:
        items = datalist.items(section)
        if items:
            if section != sections[0]:
                logging.getLogger(__name__).warning(
                    "%s has no %s tomogram: the %s ones are used instead. Scores on them flatter the model.",
                    datalist.path,
                    sections[0],
                    section,
                )
            return items
    raise ValueError(
        f"{datalist.path}: expected a non-empty list {sections[-1]!r}, found sections: "
        f"{', '.join(datalist.filled()) or 'none'}. Add tomograms to it, each as {{'image': ..., 'label': ...}}."
    )


def is_tomogram(path: str | Path) -> bool:
    """Tell whether there is a tomogram of this path: a file, or a Zarr (or a level of one), which is a folder."""
    return Path(path).is_file() or (is_zarr(path) and Path(path).is_dir())


def tomograms_in(folder: Path) -> list[Path]:
    """List the tomograms of a folder by their endings (`VOLUME_SUFFIXES`), sorted; other folders are left out.

    Volumes that are called labels or classes (``TS_01_labels.mrc``, ``classes.mrc``) are left out, too.
    """
    volumes = [path for path in folder.iterdir() if path.name.lower().endswith(VOLUME_SUFFIXES) and is_tomogram(path)]
    return sorted(path for path in volumes if not is_called(tomogram_stem(path.name), (*LABEL_WORDS, "classes")))
