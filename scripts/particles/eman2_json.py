"""EMAN2 info file (.json): `boxes_3d` in unbinned pixels from the tomogram's middle, nx // 2."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from custom_transforms.files.json_object import read_json
from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.context import TomogramContext, tomogram_base_name
from scripts.particles.shared.declared import Says, usable_pixel
from scripts.particles.shared.format import Format, class_numbers, optional_numbers, write_text

__all__ = ["EMAN2", "read", "says", "write"]

_BOX_ANGSTROM = 200.0  # only how large EMAN2 draws a box whose radius is unknown


def read(path: Path, context: TomogramContext) -> ParticleList:
    """Read; voxel = box * `apix_unbin` / voxel size + n // 2. Needs voxel size and size of the tomogram in use."""
    content = _content(path)
    boxes = content["boxes_3d"]
    if not boxes:
        return ParticleList(np.zeros((0, 3)))
    for index, box in enumerate(boxes, start=1):
        _check_box(box, index, path)
    voxel = context.voxel_size_xyz("eman2")
    middle = np.array(context.require("size_zyx", "eman2")[::-1]) // 2
    pixel = usable_pixel(content.get("apix_unbin")) or voxel / context.factor
    numbers = [str(box[5]) if len(box) > 5 else "" for box in boxes]
    classes = content.get("class_list")
    classes = classes if isinstance(classes, dict) else {}
    names = {key: str(value.get("name", key)) for key, value in classes.items() if isinstance(value, dict)}
    scores = [box[4] if len(box) > 4 and _is_number(box[4]) else "" for box in boxes]
    return ParticleList(
        (np.array([box[:3] for box in boxes], dtype=float) * pixel / voxel + middle) * voxel,
        tomogram=_run(path) or context.name,
        class_name=[names.get(number, number) for number in numbers],
        score=optional_numbers(scores, "score", "eman2", path),
    )


def says(path: Path, context: TomogramContext) -> Says:
    """`apix_unbin`, and the tomogram that the file is named after."""
    return Says(
        usable_pixel(_content(path).get("apix_unbin")), "apix_unbin", tomograms=(_run(path),) if _run(path) else ()
    )


def _content(path: Path) -> dict:
    content = read_json(path, "an eman2 list")
    if not isinstance(content, dict) or not isinstance(content.get("boxes_3d"), list):
        raise ValueError(f'{path}: eman2 needs {{"boxes_3d": [[x, y, z, ...], ...]}}.')
    return content


def _check_box(box: object, number: int, path: Path) -> None:
    """A box is x, y, z, or x, y, z, method, score, class: with a number too few or too many the others would shift."""
    good = isinstance(box, list) and len(box) >= 3 and all(_is_number(value) for value in box[:3])
    if not good or not np.isfinite(box[:3]).all() or (len(box) > 3 and not isinstance(box[3], str)):  # type: ignore[index,arg-type]
        raise ValueError(
            f"{path}: eman2 box {number}: expected [x, y, z] or [x, y, z, method, score, class], got {str(box)[:60]}."
        )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _run(path: Path) -> str:
    ending = "_info.json"
    return tomogram_base_name(path.name.removesuffix(ending)) if path.name.endswith(ending) else ""


def write(particles: ParticleList, path: Path, context: TomogramContext) -> None:
    """Write boxes with their score and class, `class_list` and `apix_unbin`."""
    voxel = context.voxel_size_xyz("eman2")
    middle = np.array(context.require("size_zyx", "eman2")[::-1]) // 2
    pixel = float(voxel[0] / context.factor)
    boxes = (particles.centers_xyz_angstrom / voxel - middle) * voxel / pixel
    numbers = class_numbers(particles, context)
    names = dict(zip(numbers, map(str, particles.class_name), strict=True)) or {0: ""}
    radius = np.asarray(particles.radius_angstrom)
    size = 2 * float(np.nanmax(radius)) if np.isfinite(radius).any() else _BOX_ANGSTROM
    score = np.nan_to_num(np.asarray(particles.score), nan=0.0)
    content = {
        "apix_unbin": pixel,
        "boxes_3d": [
            [*map(float, box.round(6)), "detection", float(s), number]
            for box, s, number in zip(boxes, score, numbers, strict=True)
        ],
        "class_list": {
            str(number): {"boxsize": round(size / pixel), "name": name or "particle"}
            for number, name in sorted(names.items())
        },
    }
    write_text(path, json.dumps(content, indent=1) + "\n")


EMAN2 = Format(
    name="eman2",
    description="EMAN2 info json: unbinned pixels from the middle (n // 2)",
    suffixes=(".json",),
    keeps=frozenset({"score", "class", "subvoxel"}),
    read=read,
    write=write,
    sniff=lambda head: b'"boxes_3d"' in head or b'"apix_unbin"' in head,
    counts="unbinned",
    says=says,
    centered=True,
)
