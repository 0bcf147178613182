"""Plain text: x y z in voxels from the corner, whitespace or commas, no header (`.coords`, `.txt`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.context import TomogramContext
from scripts.particles.shared.format import Format, read_text, write_text

__all__ = ["COORDS", "read", "write"]


def read(path: Path, context: TomogramContext) -> ParticleList:
    """Read the first three numbers of each line as x y z (or ``context.axis_order``); needs the voxel size.

    Empty lines and lines that begin with # are skipped; so is a header line without numbers.
    """
    rows = [
        (number, line.replace(",", " ").split())
        for number, line in enumerate(read_text(path, "coords").splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if rows and not any(_is_number(word) for word in rows[0][1]):
        rows = rows[1:]
    centers = np.zeros((len(rows), 3))
    for index, (number, words) in enumerate(rows):
        if len(words) < 3 or not all(_is_number(word) for word in words[:3]):
            raise ValueError(
                f"{path}: coords line {number}: expected three numbers x y z, got {' '.join(words)[:60]!r}."
            )
        centers[index] = [float(word) for word in words[:3]]
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
