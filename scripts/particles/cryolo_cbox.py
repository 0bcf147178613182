"""crYOLO .cbox (read only): x and y of the box's corner, z of its middle, voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.context import TomogramContext
from scripts.particles.shared.format import Format, number_column, optional_column
from scripts.particles.shared.star_tables import read_particle_block, sniff_star

__all__ = ["CRYOLO", "read"]

_NEEDED = ("CoordinateX", "CoordinateY", "CoordinateZ", "Width", "Height")


def read(path: Path, context: TomogramContext) -> ParticleList:
    """Read; center = corner + half the box in x and y. Needs the voxel size."""
    table, _ = read_particle_block(path, "cbox", _NEEDED)
    x, y, z, width, height = (number_column(table, column, "cbox", path) for column in _NEEDED)
    voxels = np.stack([x + width / 2, y + height / 2, z], axis=1)
    if len(table) == 0:
        return ParticleList(voxels)
    size = optional_column(table, "EstWidth", "cbox", path)
    voxel = context.voxel_size_xyz("cbox")
    return ParticleList(
        voxels * voxel,
        tomogram=context.name,
        score=optional_column(table, "Confidence", "cbox", path),
        radius_angstrom=size / 2 * voxel[0],
    )


CRYOLO = Format(
    name="cbox",
    description="crYOLO cbox (read only): x, y of the box corner, z of the center, voxels",
    suffixes=(".cbox",),
    keeps=frozenset(),
    read=read,
    write=None,
    sniff=lambda head: sniff_star(head, "CoordinateX") and b"_Width" in head,
)
