"""CZI cryo-ET data portal (.ndjson): one point a line, voxels of the annotated tomogram from the corner."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from custom_transforms.files.json_object import parse_json
from custom_transforms.files.text import read_text
from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.binning import listed_voxel_to_angstrom_xyz
from scripts.particles.shared.context import TomogramContext
from scripts.particles.shared.declared import Says, usable_pixel
from scripts.particles.shared.format import Format, write_text
from scripts.particles.shared.json_lists import point_xyz, rotation_from_matrices

__all__ = ["CZI", "read", "says", "write"]

_FOLDER = "VoxelSpacing"
_TYPES = ("point", "orientedPoint", "instancePoint")


def read(path: Path, context: TomogramContext) -> ParticleList:
    """Read `point`, `orientedPoint` (with `xyz_rotation_matrix`) and `instancePoint`; needs the voxel size."""
    rows = []
    for number, line in enumerate(read_text(path, "a czi list").split("\n"), start=1):
        if line.strip():
            rows.append(_parse_line(line, number, path))
    if not rows:
        return ParticleList(np.zeros((0, 3)))
    voxels = np.array([point_xyz(row.get("location"), path, "czi", i) for i, row in enumerate(rows, start=1)])
    matrices = [row.get("xyz_rotation_matrix") for row in rows]
    known = [matrix is not None for matrix in matrices]
    if any(known) and not all(known):
        raise ValueError(f"{path}: czi point {known.index(False) + 1} lacks xyz_rotation_matrix, others have it.")
    return ParticleList(
        listed_voxel_to_angstrom_xyz(voxels, context, "czi"),
        tomogram=context.name,
        rotation=rotation_from_matrices(matrices, path, "czi") if all(known) else None,
    )


def says(path: Path, context: TomogramContext) -> Says:
    """The voxel spacing, which the portal keeps in the names of its folders: VoxelSpacing13.480/Annotations/..."""
    spacings = [part[len(_FOLDER) :] for part in path.absolute().parts if part.startswith(_FOLDER)]
    return Says(
        usable_pixel(spacings[-1]) if spacings else None, f"the folder {_FOLDER}{spacings[-1]}" if spacings else ""
    )


def write(particles: ParticleList, path: Path, context: TomogramContext) -> None:
    """Write `orientedPoint` where orientations are known, else `point`."""
    voxels = particles.centers_xyz_angstrom
    if len(particles):
        voxels = voxels / context.voxel_size_xyz("czi")
    matrices = None if particles.rotation is None else particles.rotation.as_matrix()
    lines = []
    for index, voxel in enumerate(voxels):
        point: dict = {"type": "point", "location": dict(zip("xyz", map(float, voxel.round(6)), strict=True))}
        if matrices is not None:
            point.update(type="orientedPoint", xyz_rotation_matrix=matrices[index].tolist())
        lines.append(json.dumps(point) + "\n")
    write_text(path, "".join(lines))


def _parse_line(line: str, number: int, path: Path) -> dict:
    row = parse_json(line, f"{path}: czi line {number}")
    if not isinstance(row, dict) or row.get("type") not in _TYPES:
        got = row.get("type") if isinstance(row, dict) else line[:40]
        raise ValueError(f"{path}: czi line {number}: expected a type of {', '.join(_TYPES)}, got {got!r}.")
    return row


CZI = Format(
    name="czi",
    description="CZI data portal ndjson: voxels from the corner, 3 x 3 matrices",
    suffixes=(".ndjson",),
    keeps=frozenset({"orientation", "subvoxel"}),
    read=read,
    write=write,
    sniff=lambda head: (
        head.lstrip().startswith(b"{") and b'"type"' in head and b"oint" in head and b'"location"' in head
    ),
    says=says,
)
