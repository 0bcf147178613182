"""The original program's `pred_center_coordinate.txt`: seven tab-separated columns, Å and voxels, from the corner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from custom_transforms.files.text import read_text
from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.context import TomogramContext
from scripts.particles.shared.declared import Says, voxel_size_in
from scripts.particles.shared.format import Format, number_column, require_columns, write_text

__all__ = ["COLUMNS", "ORIGINAL_TXT", "read", "says", "write"]

COLUMNS = ("PositionX", "PositionY", "PositionZ", "VolumeX", "VolumeY", "VolumeZ", "OffsetFromFace")


def read(path: Path, context: TomogramContext) -> ParticleList:
    """Read the seven columns; only the positions in Å are used, so no voxel size is needed."""
    table = _table(path)
    centers = np.stack([number_column(table, column, "original", path) for column in COLUMNS[:3]], axis=1)
    return ParticleList(centers, tomogram=context.name)


def says(path: Path, context: TomogramContext) -> Says:
    """The voxel size of the tomogram that the list was made on, for one whose voxel size is not known."""
    table, known = _table(path), context.voxel_size_zyx is not None
    return Says(None if known else voxel_size_in(table, COLUMNS[:3], COLUMNS[3:6]), "PositionX / VolumeX")


def _table(path: Path) -> pd.DataFrame:
    lines = [line.split() for line in read_text(path, "an original list").split("\n") if line.strip()]
    header = lines[0] if lines else []
    rows = lines[1:]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise ValueError(
                f"{path}: original row {number}: expected {len(header)} columns, got {len(row)}. Is the file complete?"
            )
    table = pd.DataFrame(rows, columns=header)
    require_columns(table, COLUMNS[:3], "original", path)
    return table


def write(particles: ParticleList, path: Path, context: TomogramContext) -> None:
    """Write Å (voxel size times index) and sub-voxel indices; needs the voxel size."""
    voxel_size_xyz = context.voxel_size_xyz("original")
    angstrom = particles.centers_xyz_angstrom
    table = np.column_stack([angstrom, angstrom / voxel_size_xyz, np.zeros(len(particles))])
    lines = ["\t".join(COLUMNS)] + ["\t".join(f"{value:.6f}" for value in row) for row in table]
    write_text(path, "\n".join(lines) + "\n")


def _sniff(head: bytes) -> bool:
    return head.decode("utf-8", "replace").lstrip("\ufeff").split()[:3] == list(COLUMNS[:3])


ORIGINAL_TXT = Format(
    name="original",
    description="the original's txt: PositionX/Y/Z in Å, VolumeX/Y/Z in voxels, from the corner",
    suffixes=(".txt",),
    keeps=frozenset({"subvoxel"}),
    read=read,
    write=write,
    sniff=_sniff,
    counts="angstrom",
    says=says,
)
