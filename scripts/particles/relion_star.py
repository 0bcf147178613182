"""RELION 3, RELION 4 and Warp STAR: `rlnCoordinateX/Y/Z`, unbinned pixels from the corner."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.binning import angstrom_to_unbinned_xyz, unbinned_to_angstrom_xyz
from scripts.particles.shared.context import TomogramContext, tomogram_base_name
from scripts.particles.shared.format import Format, number_column
from scripts.particles.shared.star_tables import (
    angle_columns,
    build_particles,
    class_columns,
    particle_names,
    pixel_size_in_file,
    read_particle_block,
    score_column,
    sniff_star,
    subtomogram_shift,
    tomogram_names,
    write_block,
)

__all__ = ["COORDINATES", "RELION3", "RELION4", "WARP", "read", "write"]

COORDINATES = ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")
_NAME_COLUMN = {"relion4": "rlnTomoName", "relion3": "rlnMicrographName", "warp": "rlnMicrographName"}


def read(path: Path, context: TomogramContext, format_name: str) -> ParticleList:
    """Read; pixel = coordinate - (subtomogram rotation . `rlnOrigin*Angst`) / pixel size.

    Needs the voxel size, and ``binning`` where the tomogram in use is binned against the coordinates.
    """
    table, optics = read_particle_block(path, format_name, COORDINATES)
    pixels = np.stack([number_column(table, c, format_name, path) for c in COORDINATES], axis=1)
    if len(table):
        shift = subtomogram_shift(table, path)
        pixels = pixels - shift / pixel_size_in_file(table, optics, context, format_name, path)
        centers = unbinned_to_angstrom_xyz(pixels, context, format_name)
    else:
        centers = pixels
    columns = (_NAME_COLUMN[format_name], "rlnTomoName", "rlnMicrographName")
    column = next((c for c in columns if c in table.columns), None)
    names = [tomogram_base_name(str(n)) for n in table[column]] if column else [context.name] * len(table)
    return build_particles(table, centers, names, context, path)


def write(particles: ParticleList, path: Path, context: TomogramContext, format_name: str) -> None:
    """Write tomogram name, unbinned pixels, and angles, class and score where they are known."""
    names = [tomogram_base_name(name) for name in tomogram_names(particles, context, format_name)]
    if format_name == "warp":
        names = [f"{name}.tomostar" for name in names]
    elif format_name == "relion3":
        names = [f"{name}.mrc" for name in names]
    pixels = np.zeros((0, 3))
    if len(particles):
        pixels = angstrom_to_unbinned_xyz(particles.centers_xyz_angstrom, context, format_name)
    columns = {
        _NAME_COLUMN[format_name]: names,
        **(particle_names(names) if format_name == "relion4" else {}),
        **dict(zip(COORDINATES, pixels.T, strict=True)),
        **angle_columns(particles),
        **class_columns(particles, context),
        **score_column(particles),
    }
    write_block(path, columns, block="" if format_name == "warp" else "particles")


def _sniff(head: bytes, format_name: str) -> bool:
    if not sniff_star(head, "rlnCoordinateZ") or not sniff_star(head, _NAME_COLUMN[format_name]):
        return False
    is_warp = b".tomostar" in head
    return is_warp if format_name == "warp" else not is_warp


def _format(name: str, description: str) -> Format:
    return Format(
        name=name,
        description=description,
        suffixes=(".star",),
        keeps=frozenset({"score", "class", "orientation", "subvoxel", "tomogram"}),
        read=partial(read, format_name=name),
        write=partial(write, format_name=name),
        sniff=partial(_sniff, format_name=name),
        unbinned=True,
    )


RELION4 = _format("relion4", "RELION 4 STAR: unbinned pixels from the corner, rlnTomoName")
WARP = _format("warp", "Warp STAR: unbinned pixels from the corner, rlnMicrographName TS_01.tomostar")
RELION3 = _format("relion3", "RELION 3 STAR: unbinned pixels from the corner, rlnMicrographName")
