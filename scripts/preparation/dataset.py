"""The files of a prepared data set: labels, tables, pictures, and the datalist that training reads."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from custom_transforms.files.whole_files import atomic_path
from custom_transforms.volumes.mrc_write import instance_dtype, write_instances, write_mrc
from scripts.particles.csv_table import table_text
from scripts.particles.shared.format import write_text
from scripts.preparation.labels import Prepared
from scripts.preparation.volume import apply_numbers, measure_labels

__all__ = ["Item", "split_by_region", "split_names", "summary_text", "write_datalist", "write_item", "write_json"]


@dataclass(frozen=True)
class Item:
    """One labelled tomogram as it is stored.

    ``image`` is a path to refer to, or an array (Z, Y, X) to write, or None; ``classes`` numbers each class.
    """

    name: str
    image: Path | np.ndarray | None
    prepared: Prepared
    voxel_size_zyx: np.ndarray
    origin_xyz: np.ndarray
    contrast: str
    classes: Mapping[str, int]


def write_item(
    item: Item, folder: Path, output_dir: Path, background: np.ndarray | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Write the files of one item into ``folder``.

    ``background``, shape (Z, Y, X), is the tomogram behind the outlines of the picture.

    Returns
    -------
    entry : dict
        Of the datalist, paths relative to ``output_dir``.
    files : list of str
        The names of what was written.
    """
    entry: dict[str, Any] = {}
    if isinstance(item.image, np.ndarray):
        entry["image"] = f"{item.name}.mrc"
        write_mrc(folder / entry["image"], item.image, item.voxel_size_zyx, item.origin_xyz, dtype=np.float32)
    elif item.image is not None:
        entry["image"] = _relative(item.image, output_dir)
    entry["label"] = f"{item.name}_labels.mrc"
    write_instances(folder / entry["label"], item.prepared.labels, item.voxel_size_zyx, item.origin_xyz)
    if item.classes:
        entry["classes"] = f"{item.name}_classes.mrc"
        classes = _class_volume(item)
        write_mrc(folder / entry["classes"], classes, item.voxel_size_zyx, item.origin_xyz, dtype=classes.dtype)
    entry["particles"] = f"{item.name}_particles.csv"
    write_text(folder / entry["particles"], table_text(item.prepared.table))
    picture = f"{item.name}.png"
    draw_slices(folder / picture, item, item.image if isinstance(item.image, np.ndarray) else background)
    files = [name for key, name in entry.items() if key != "image" or isinstance(item.image, np.ndarray)]
    voxel = item.voxel_size_zyx
    same = bool(np.abs(voxel / voxel[0] - 1).max() < 0.01)
    entry |= {"contrast": item.contrast, "voxel_size": float(voxel[0]) if same else voxel.tolist()}
    return entry, [*files, picture]


def write_datalist(
    folder: Path, name: str, sections: Mapping[str, list[dict]], classes: Mapping[str, int], source: str | None
) -> None:
    """Write ``dataset.json``, which training takes as it is; ``source`` is the particle list or the labels."""
    provenance = {"made_by": "python -m scripts prepare", "particles": source, "details": "prepare.json"}
    names = {str(number): name for name, number in classes.items()}
    content = {"name": name, **sections, "class_names": names, "provenance": provenance}
    write_json(folder / "dataset.json", content)


def split_names(
    names: Sequence[str],
    validation: str | None,
    test: str | None,
    validation_fraction: float,
    test_fraction: float,
) -> dict[str, str]:
    """Give every tomogram a section, "training", "validation" or "test".

    Named ones (comma-separated) go where they are named; otherwise the last in alphabetical order, at least one for
    validation where there are two or more.

    Raises
    ------
    ValueError
        For an unknown name, or if nothing is left to train on.

    Examples
    --------
    >>> split_names(["a", "b", "c"], None, "a", 0.2, 0.0)
    {'a': 'test', 'b': 'training', 'c': 'validation'}
    """
    section = dict.fromkeys(names, "training")
    chosen = {"test": _named(test, names, "--test"), "validation": _named(validation, names, "--validation")}
    both = sorted(set(chosen["test"]) & set(chosen["validation"]))
    if both:
        raise ValueError(f"{both[0]} is named in --validation and in --test; each tomogram has one section.")
    free = [name for name in sorted(names) if name not in chosen["test"] + chosen["validation"]]
    for key, fraction, given, least in (
        ("test", test_fraction, test, 0),
        ("validation", validation_fraction, validation, 1 if validation_fraction > 0 else 0),
    ):
        if given is None and len(names) > 1:
            count = min(max(least, round(fraction * len(names))), max(0, len(free) - 1))
            chosen[key] = free[len(free) - count :]
            free = free[: len(free) - count]
        section.update(dict.fromkeys(chosen[key], key))
    if "training" not in section.values():
        raise ValueError("no tomogram is left for training. Name fewer in --validation and --test.")
    return section


def split_by_region(item: Item, image: np.ndarray | None, fraction: float) -> dict[str, Item]:
    """Cut one tomogram in two along its longer side in the plane; a particle belongs to the part with its center.

    What of it reaches into the other part is ignored there (-1), and does not count in its volume. Without particles
    on both sides nothing is cut.
    """
    labels, table = item.prepared.labels, item.prepared.table
    axis = 1 if labels.shape[1] >= labels.shape[2] else 2
    cut = int(np.clip(round(labels.shape[axis] * (1 - fraction)), 1, labels.shape[axis] - 1))
    position = table[f"{'zyx'[axis]}_vox"].to_numpy(dtype=float)
    has_label = table["label"].to_numpy(dtype=int) > 0
    in_training = position < cut - 0.5
    if not (has_label & in_training).any() or not (has_label & ~in_training).any():
        return {"training": item}
    parts = {}
    for section, start, stop, rows in (
        ("training", 0, cut, in_training),
        ("validation", cut, labels.shape[axis], ~in_training),
    ):
        window = tuple(slice(start, stop) if a == axis else slice(None) for a in range(3))
        shift_zyx = np.where(np.arange(3) == axis, start, 0) * item.voxel_size_zyx
        parts[section] = replace(
            item,
            name=f"{item.name}_{section}",
            image=None if image is None else np.asarray(image[window]),
            prepared=_part(labels, window, table, rows, item.voxel_size_zyx),
            origin_xyz=item.origin_xyz + shift_zyx[::-1],
        )
    return parts


def _part(
    labels: np.ndarray, window: tuple[slice, ...], table: pd.DataFrame, rows: np.ndarray, voxel_size_zyx: np.ndarray
) -> Prepared:
    old = table["label"].to_numpy(dtype=int)
    part_labels = labels[window].copy()
    volumes, _, touches = measure_labels(part_labels, int(labels.max()))
    volume = np.where(old > 0, np.append(0, volumes)[old], 0)
    kept = rows & (volume > 0)
    numbers = np.full(len(volumes) + 1, -1, dtype=labels.dtype)
    numbers[old[kept]] = np.arange(1, int(kept.sum()) + 1)
    apply_numbers(part_labels, numbers)
    part = table[rows].reset_index(drop=True)
    part["label"] = np.where(kept, numbers[old], 0)[rows]
    part["volume_vox"] = volume[rows]
    part["volume_angstrom3"] = (volume[rows] * voxel_size_zyx.prod()).round(1)
    part["touches_border"] = (table["touches_border"].to_numpy(dtype=bool) | np.append(False, touches)[old])[rows]
    part.loc[((old > 0) & ~kept)[rows], "dropped_by"] = "no_voxel"
    part["particle_id"] = np.arange(1, len(part) + 1)
    shift_xyz = (np.array([w.start or 0 for w in window]) * voxel_size_zyx)[::-1]
    for axis, name in enumerate("xyz"):
        for column in (f"{name}_angstrom", f"reference_{name}_angstrom"):
            if column in part.columns:
                part[column] = (part[column].astype(float) - shift_xyz[axis]).round(6)
        part[f"{name}_vox"] = (part[f"{name}_angstrom"].astype(float) / voxel_size_zyx[2 - axis]).round(6)
    return Prepared(part_labels, part)


def draw_slices(path: Path, item: Item, image: np.ndarray | None) -> None:
    """Three orthogonal slices, row 0 at the top, with the outlines over the tomogram (or over the labels alone)."""
    labels = item.prepared.labels
    z, y, x = (int(np.argmax(counts)) if counts.any() else len(counts) // 2 for counts in _label_counts(labels))
    cuts = (("z", "x", "y", z), ("y", "x", "z", y), ("x", "y", "z", x))
    figure = Figure(figsize=(15, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, horizontal, vertical, index) in zip(figure.subplots(1, 3), cuts, strict=True):
        axis = "zyx".index(name)
        plane = labels[_plane(axis, index)]
        background = (plane > 0) * np.float32(0.5) if image is None else image[_plane(axis, index)].astype(np.float32)
        low, high = np.percentile(background, (1, 99)) if image is not None else (0, 1)
        axes.imshow(background, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), origin="upper")
        axes.imshow(_outlines(plane), origin="upper", interpolation="nearest")
        axes.set(xlabel=f"{horizontal} (voxels)", ylabel=f"{vertical} (voxels)", title=f"{name} = {index}")
    figure.suptitle(f"{item.name}: {int(labels.max())} particles; orange outlines, blue ignored; row 0 at the top")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


def summary_text(summary: Mapping[str, Any]) -> str:
    """The summary of `prepare` for the terminal."""
    lines = []
    for name, one in summary["tomograms"].items():
        counts = ", ".join(f"{key or 'particle'} {value['count']}" for key, value in one["by_class"].items())
        lines.append(f"{name} ({one['section']}): {one['particles']} particles: {counts or 'none'}")
        facts = [
            (f"{one[key]['count']} {word}")
            for key, word in (("clipped", "cut by the border"), ("outside", "outside the volume"), ("hidden", "hidden"))
            if one.get(key, {}).get("count")
        ]
        duplicates = one.get("duplicates", {})
        if duplicates.get("pairs"):
            facts.append(f"{duplicates['pairs']} duplicate pairs ({duplicates['removed']} particles removed)")
        if one.get("outside_region"):
            facts.append(f"{one['outside_region']} outside the region")
        if one.get("contested_voxels"):
            facts.append(f"{one['contested_voxels']} contested voxels")
        if "recentered" in one:
            moved = one["recentered"]
            facts.append(f"moved {moved['mean_angstrom']:.1f} Å in the mean, {moved['max_angstrom']:.1f} Å at most")
        lines += [f"  {', '.join(facts)}"] if facts else []
    return "\n".join([*lines, *(f"note: {note}" for note in summary["notes"])])


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _class_volume(item: Item) -> np.ndarray:
    table = item.prepared.table
    labels = table["label"].to_numpy(dtype=int)
    lookup = np.zeros(int(labels.max(initial=0)) + 2, dtype=np.int32)
    numbers = np.array([item.classes.get(str(name), 0) for name in table["class"]], dtype=np.int32)
    lookup[labels[labels > 0]] = numbers[labels > 0]
    lookup[-1] = -1  # index -1: ignored voxels
    dtype = np.int8 if lookup.max() <= 127 else instance_dtype(int(lookup.max()), -1)
    return lookup.astype(dtype)[item.prepared.labels]


def _label_counts(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labelled voxels of every plane along each axis."""
    by_z = np.zeros(labels.shape[0], dtype=np.int64)
    by_y, by_x = np.zeros(labels.shape[1], dtype=np.int64), np.zeros(labels.shape[2], dtype=np.int64)
    for index, plane in enumerate(labels):
        mask = plane > 0
        by_z[index] = mask.sum()
        by_y += mask.sum(axis=1)
        by_x += mask.sum(axis=0)
    return by_z, by_y, by_x


def _plane(axis: int, index: int) -> tuple[slice | int, ...]:
    return tuple(index if a == axis else slice(None) for a in range(3))


def _outlines(plane: np.ndarray) -> np.ndarray:
    """RGBA picture of where a label meets another number, and of ignored voxels."""
    edge = np.zeros(plane.shape, dtype=bool)
    for axis in (0, 1):
        near = np.diff(plane, axis=axis) != 0
        first = tuple(slice(None, -1) if a == axis else slice(None) for a in (0, 1))
        last = tuple(slice(1, None) if a == axis else slice(None) for a in (0, 1))
        edge[first] |= near
        edge[last] |= near
    picture = np.zeros((*plane.shape, 4), dtype=np.float32)
    picture[plane < 0] = (0.2, 0.4, 1.0, 0.3)
    picture[edge & (plane > 0)] = (1.0, 0.55, 0.0, 0.9)
    return picture


def _relative(path: Path, output_dir: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), output_dir.resolve())).as_posix()
    except ValueError:  # another drive, on Windows
        return path.resolve().as_posix()


def _named(option: str | None, names: Sequence[str], flag: str) -> list[str]:
    chosen = [name.strip() for name in (option or "").split(",") if name.strip()]
    unknown = [name for name in chosen if name not in names]
    if unknown:
        raise ValueError(f"{flag} names {unknown[0]!r}; the tomograms are {', '.join(names)}.")
    return chosen
