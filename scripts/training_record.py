"""What a training run is trained on, for the record beside its weights."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from custom_transforms.class_targets import class_members, classes_in_table
from custom_transforms.files.json_object import read_object
from custom_transforms.volumes.mrc_read import mrc_geometry
from custom_transforms.volumes.read import read_tomogram
from custom_transforms.volumes.rescale import TOLERANCE
from scripts.datalist import load_datalist
from scripts.networks import weights_file
from scripts.records.weights import file_digest, read_record

__all__ = ["describe_training"]

FEW = 5  # particles of a class


def describe_training(
    dataset_dir: str | Path,
    voxel_size: float | None = None,
    contrast: str = "dark",
    pretrained: str | Path | None = None,
    classes: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    other: str = "background",
    **settings: Any,
) -> dict[str, Any]:
    """Say what a run is trained on, for its ``model.json``; part of ``train_*.json``.

    Parameters
    ----------
    dataset_dir : path
        Folder with a ``dataset.json``.
    voxel_size : float, optional
        Å per voxel that replaces what the files say.
    contrast : str
        Of items that do not say their own.
    pretrained : path, optional
        The weights the run starts from; another voxel size than theirs is a warning.
    classes, other
        The classes that are told apart (`class_members`), and what other particles are.
    **settings
        Recorded as they are.

    Returns
    -------
    dict
        ``dataset`` (name, tomograms, sha256 of its dataset.json if it has one), ``voxel_size`` (a number, None where
        no file says it, or a list where tomograms differ), ``contrast``, and the settings. With classes also their
        names, the names of the data set that each stands for, and how many particles of each there are to train on.

    Raises
    ------
    ValueError
        If no tomogram has a particle of a class; lists the classes there are.
    """
    items = load_datalist(dataset_dir, "training")
    path = Path(dataset_dir).expanduser() / "dataset.json"
    dataset: dict[str, Any] = {"name": str(dataset_dir), "tomograms": len(items)}
    if path.is_file():  # a copick project has none
        name = read_object(path, "a datalist").get("name") or path.parent.resolve().name
        dataset |= {"name": name, "sha256": file_digest(path)}
    sizes = [voxel_size] if voxel_size is not None else sorted({_voxel_size(item) for item in items} - {0.0})
    size = sizes[0] if len(sizes) == 1 else sizes or None
    contrasts = sorted({str(item.get("contrast", contrast)) for item in items})
    known = None if pretrained is None else read_record(weights_file(pretrained)).voxel_size
    if known is not None and isinstance(size, (int, float)) and abs(size / known - 1) > TOLERANCE:
        logging.getLogger(__name__).warning(
            "%s was trained at %g Å per voxel, these tomograms have %g Å: particles look larger or smaller to it. "
            "`python -m scripts prepare --voxel_size %g` stores them at its size.",
            pretrained, known, size, known,
        )  # fmt: skip
    return {
        "dataset": dataset,
        "voxel_size": size,
        "contrast": contrasts[0] if len(contrasts) == 1 else contrasts,
        "pretrained": None if pretrained is None else str(pretrained),
        **settings,
        **(_described_classes(items, classes, other) if classes else {}),
    }


def _described_classes(items: Sequence[Mapping[str, Any]], classes: Any, other: str) -> dict[str, Any]:
    """The classes and their particles; a class with hardly any is a warning, one with none an error."""
    members = class_members(classes)
    tables = {str(item["particles"]) for item in items if "particles" in item}  # each once, however often it is cropped
    found = Counter(name for table in tables for name in classes_in_table(table))
    counts = {name: sum(found[one] for one in group) for name, group in members.items()}
    lacking = [one for group in members.values() for one in group if not found[one]]
    if lacking:
        known = ", ".join(f"{name or '(no name)'} ({count})" for name, count in sorted(found.items())) or "none"
        raise ValueError(
            f"classes: expected classes that the training tomograms have, got {', '.join(lacking)}. They have {known}."
        )
    for name, count in counts.items():
        if count < FEW:
            logging.getLogger(__name__).warning(
                "class %s has %d particle%s to train on: expect it to be missed. Add tomograms that hold more, merge "
                "it with another class, or leave it out.", name, count, "" if count == 1 else "s",
            )  # fmt: skip
    return {"classes": list(members), "class_members": members, "class_counts": counts, "other": other}


def _voxel_size(item: Mapping[str, Any]) -> float:
    """Å per voxel of a tomogram along x, to four digits; 0 if nothing says it."""
    geometry = mrc_geometry(item["image"])
    if geometry is not None:
        size = np.asarray(geometry[1])
    else:
        _, metadata = read_tomogram(item["image"], voxel_size=item.get("voxel_size"))
        size = np.asarray(metadata["voxel_size_zyx"])
    known = float(size[-1]) or float(np.ravel(item.get("voxel_size") or 0.0)[-1])
    return float(f"{known:.4g}")
