"""Plain text: x y z in voxels from the corner, whitespace or commas, no header (`.coords`, `.txt`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from custom_transforms.files.text import read_text
from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.context import TomogramContext
from scripts.particles.shared.format import Format, write_text

__all__ = ["COORDS", "read", "write"]


def read(path: Path, context: TomogramContext) -> ParticleList:
    """Read three numbers of each line as x y z (or ``context.axis_order``); needs the voxel size.

    Empty lines and lines that begin with # are skipped. A header line may name the columns: with one, x, y and z are
    taken by their names, and there may be others.
    """
    rows = [
        (number, line.replace(",", " ").split())
        for number, line in enumerate(read_text(path, "a coords list").split("\n"), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    header = [word.lower() for word in rows.pop(0)[1]] if rows and not any(map(_is_number, rows[0][1])) else []
    taken = [header.index(axis) for axis in "xyz"] if set("xyz") <= set(header) else [0, 1, 2]
    width = max(len(header), 3)
    centers = np.zeros((len(rows), 3))
    for index, (number, words) in enumerate(rows):
        if len(words) != width or not all(_is_number(words[column]) for column in taken):
            expected = "a value for each column" if header else "three numbers x y z"
            raise ValueError(
                f"{path}: coords line {number}: expected {expected}, "
                f"got {' '.join(words)[:60]!r}. Where there are more columns, name them in a first line: x y z ..."
            )
        centers[index] = [float(words[column]) for column in taken]
    if not rows:
        return ParticleList(centers)
    order = context.axis_order or "xyz"
    return ParticleList(
        centers[:, [order.index(axis) for axis in "xyz"]] * context.voxel_size_xyz("coords"), tomogram=context.name
    )


def write(particles: ParticleList, path: Path, context: TomogramContext) -> None:
    """Write ``x y z`` in voxels, one particle a line."""
    voxels = particles.centers_xyz_angstrom
    if len(particles):
        voxels = voxels / context.voxel_size_xyz("coords")
    write_text(path, "".join(f"{x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in voxels))


def _is_number(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False


def _sniff(head: bytes) -> bool:
    lines = [line for line in head.decode("utf-8", "replace").splitlines() if line.strip() and line[0] != "#"]
    words = lines[0].replace(",", " ").split() if lines else []
    return 3 <= len(words) <= 4 and all(_is_number(word) for word in words)


COORDS = Format(
    name="coords",
    description="plain text: x y z in voxels from the corner",
    suffixes=(".coords", ".txt"),
    keeps=frozenset({"subvoxel"}),
    read=read,
    write=write,
    sniff=_sniff,
)
