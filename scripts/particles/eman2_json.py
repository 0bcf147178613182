"""EMAN2 info file (.json): `boxes_3d` in unbinned pixels from the tomogram's middle, nx // 2."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.context import TomogramContext
from scripts.particles.shared.format import Format, class_numbers, write_text
from scripts.particles.shared.json_lists import parse_json

__all__ = ["EMAN2", "read", "write"]

_BOX_ANGSTROM = 200.0  # only how large EMAN2 draws a box whose radius is unknown


def read(path: Path, context: TomogramContext) -> ParticleList:
    """Read; voxel = box * `apix_unbin` / voxel size + n // 2. Needs voxel size and size of the tomogram in use."""
    content = parse_json(path, "eman2")
    if not isinstance(content, dict) or not isinstance(content.get("boxes_3d"), list):
        raise ValueError(f'{path}: eman2 needs {{"boxes_3d": [[x, y, z, ...], ...]}}.')
    boxes = content["boxes_3d"]
    if not boxes:
        return ParticleList(np.zeros((0, 3)))
    unbinned = np.empty((len(boxes), 3))
    for index, box in enumerate(boxes):
        try:
            unbinned[index] = [float(box[axis]) for axis in range(3)]
        except (TypeError, ValueError, IndexError, KeyError):
            raise ValueError(f"{path}: eman2 box {index + 1}: expected [x, y, z, ...], got {str(box)[:60]}.") from None
    voxel = context.voxel_size_xyz("eman2")
    middle = np.array(context.require("size_zyx", "eman2")[::-1]) // 2
    pixel = content.get("apix_unbin")
    pixel = voxel / context.binning if pixel is None else float(pixel)
    numbers = [str(box[5]) if len(box) > 5 else "" for box in boxes]
    classes = content.get("class_list")
    classes = classes if isinstance(classes, dict) else {}
    names = {key: str(value.get("name", key)) for key, value in classes.items() if isinstance(value, dict)}
    return ParticleList(
        (unbinned * pixel / voxel + middle) * voxel,
        tomogram=path.name.removesuffix("_info.json") if path.name.endswith("_info.json") else context.name,
        class_name=[names.get(number, number) for number in numbers],
        score=[float(box[4]) if len(box) > 4 and isinstance(box[4], (int, float)) else np.nan for box in boxes],
    )


def write(particles: ParticleList, path: Path, context: TomogramContext) -> None:
    """Write boxes with their score and class, `class_list` and `apix_unbin`."""
    voxel = context.voxel_size_xyz("eman2")
    middle = np.array(context.require("size_zyx", "eman2")[::-1]) // 2
    pixel = float(voxel[0] / context.binning)
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
    unbinned=True,
)
