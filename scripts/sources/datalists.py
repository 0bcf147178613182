"""Datalists: the tomograms of a ``dataset.json``, in our form, the zoo's or the Decathlon's, or of a copick project."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from custom_transforms.files.json_object import read_json
from scripts.sources.copick_labels import labelled_tomograms
from scripts.sources.copick_project import is_copick
from scripts.sources.named import absolute_path

__all__ = ["SECTIONS", "Datalist", "is_datalist", "read_datalist"]

SECTIONS = ("training", "validation", "test")
PATH_KEYS = ("image", "label", "classes", "particles")
VALIDATION_PART = 0.2  # of the runs of a copick project


@dataclass(frozen=True)
class Datalist:
    """What a datalist says: lists of tomograms by section.

    Parameters
    ----------
    path : Path
        The file, or the URI of a copick project.
    content : dict
        As it is in the file.
    """

    path: Path
    content: dict[str, Any]

    def items(self, section: str, existing: Sequence[str] = PATH_KEYS) -> list[dict[str, Any]]:
        """The items of a section, with absolute paths; empty if there is no such section.

        An item is an object with an ``image``, or a plain text, which is the image. The files under the keys
        ``existing`` must be there.

        Raises
        ------
        FileNotFoundError, ValueError
            If a file is missing, or an item has another form.
        """
        items = self.content.get(section) or []
        if not isinstance(items, list):
            raise ValueError(
                f"{self.path}: expected a list of tomograms as {section!r}, got a {type(items).__name__}. "
                "Put each into [ ], as {'image': ..., 'label': ...}."
            )
        return [self._item(item, existing) for item in items]

    def every_item(self, existing: Sequence[str] = PATH_KEYS) -> list[dict[str, Any]]:
        """The items of all sections."""
        return [item for section in SECTIONS for item in self.items(section, existing)]

    def filled(self) -> list[str]:
        """The names of the sections that hold something."""
        return [key for key, value in self.content.items() if isinstance(value, list) and value]

    def _item(self, item: Any, existing: Sequence[str]) -> dict[str, Any]:
        item = {"image": item} if isinstance(item, str) else item
        if not isinstance(item, dict) or "image" not in item:
            raise ValueError(f"{self.path}: expected each item as {{'image': ..., 'label': ...}}, got {item!r}.")
        return {
            key: self._path(key, item, key in existing) if key in PATH_KEYS else value for key, value in item.items()
        }

    def _path(self, key: str, item: dict[str, Any], existing: bool) -> str:
        value = item[key]
        if not isinstance(value, str) or not value:
            raise ValueError(
                f"{self.path}: expected a path as {key!r} of each item, got {json.dumps(value)} in "
                f"{json.dumps(item)[:200]}. Give the file, or leave the entry out."
            )
        path = absolute_path(self.path.parent / value)
        try:
            there = not existing or Path(path).exists()
        except OSError:  # a name that no file can have
            there = False
        if not there:
            raise FileNotFoundError(f"{self.path} names a file that is not there: {path} ({key}).")
        return path


def is_datalist(path: str | Path) -> bool:
    """Tell whether a path is a datalist, or a folder with one: a JSON object with lists by section."""
    path = Path(path)
    if path.name == "dataset.json" or (path / "dataset.json").is_file():
        return True
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    content = read_json(path)
    return isinstance(content, dict) and any(isinstance(content.get(section), list) for section in SECTIONS)


def read_datalist(named: str | Path) -> Datalist:
    """Read a datalist.

    Parameters
    ----------
    named : path
        The JSON file, the folder that holds it as ``dataset.json``, or
        ``copick:CONFIG.json/TYPE@SPACING/OBJECT:USER/SESSION``: the tomograms of a project with their instance
        segmentations, of which the last fifth of the runs (one of two to seven) is the validation section.

    Raises
    ------
    FileNotFoundError, ValueError
        If it is missing, or no JSON object of lists.
    """
    if is_copick(named):
        return Datalist(Path(str(named)), _of_project(str(named)))
    path = Path(os.path.expanduser(named))
    path = path if path.suffix.lower() == ".json" else path / "dataset.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected a datalist, found none. Make one with `python -m scripts prepare` or "
            "`python -m scripts simulate`, or name its folder with --dataset_dir."
        )
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: expected an object with lists of tomograms, {{'training': [...], 'validation': [...]}}, "
            f"got a {type(content).__name__}. Put the tomograms under the name of their section."
        )
    return Datalist(path, content)


def _of_project(uri: str) -> dict[str, list[dict]]:
    items = [
        {"image": absolute_path(one.path), "label": absolute_path(labels.path), "voxel_size": one.voxel_spacing}
        for one, labels in labelled_tomograms(uri)
    ]
    held = max(1, round(VALIDATION_PART * len(items))) if len(items) > 1 else 0
    return {"training": items[: len(items) - held], "validation": items[len(items) - held :]}
