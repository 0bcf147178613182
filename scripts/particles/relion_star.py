"""RELION 3, RELION 4 and Warp STAR: `rlnCoordinateX/Y/Z`, unbinned pixels from the corner."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.binning import (
    angstrom_to_unbinned_xyz,
    unbinned_pixel_xyz,
    unbinned_to_angstrom_xyz,
)
from scripts.particles.shared.context import ParticleListWarning, TomogramContext, tomogram_base_name
from scripts.particles.shared.declared import Says
from scripts.particles.shared.format import Format, number_column
from scripts.particles.shared.star_tables import (
    ORIGINS,
    angle_columns,
    build_particles,
    class_columns,
    particle_names,
    pixel_size_in_file,
    read_particle_block,
    says,
    score_column,
    sniff_star,
    star_columns,
    subtomogram_shift,
    texts,
    tomogram_names,
    write_block,
)

__all__ = ["COORDINATES", "RELION3", "RELION4", "WARP", "read", "write"]

COORDINATES = ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")
M_COORDINATES = ("wrpCoordinateX1", "wrpCoordinateY1", "wrpCoordinateZ1")  # Å, at the first time point
_M_NAMES = {
    "wrpSourceName": "rlnMicrographName", "wrpAngleRot1": "rlnAngleRot", "wrpAngleTilt1": "rlnAngleTilt",
    "wrpAnglePsi1": "rlnAnglePsi",
}  # fmt: skip
_PIXEL_ORIGINS = ("rlnOriginX", "rlnOriginY", "rlnOriginZ")  # RELION 3.0
_NAME_COLUMN = {"relion4": "rlnTomoName", "relion3": "rlnMicrographName", "warp": "rlnMicrographName"}


def read(path: Path, context: TomogramContext, format_name: str) -> ParticleList:
    """Read; pixel = coordinate - (subtomogram rotation . `rlnOrigin*Angst`) / pixel size, or - `rlnOrigin*` in pixels.

    Needs the voxel size, and ``binning`` where the tomogram in use is binned against the coordinates. M's own
    particles (`wrpCoordinateX1`, Å from the corner) are read, too.
    """
    table, optics = read_particle_block(path, format_name, _needed(path, format_name))
    if M_COORDINATES[0] in table.columns and COORDINATES[0] not in table.columns:
        centers, table = _read_m(table, path)
    else:
        centers = _centers(table, optics, context, format_name, path)
    columns = (_NAME_COLUMN[format_name], "rlnTomoName", "rlnMicrographName")
    names = [tomogram_base_name(name) if name else context.name for name in texts(table, *columns)]
    return build_particles(table, centers, names, context, path)


def _centers(
    table: pd.DataFrame, optics: pd.DataFrame, context: TomogramContext, format_name: str, path: Path
) -> np.ndarray:
    pixels = np.stack([number_column(table, c, format_name, path) for c in COORDINATES], axis=1)
    if len(table) == 0:
        return pixels
    if set(_PIXEL_ORIGINS) & set(table.columns) and not set(ORIGINS) & set(table.columns):
        return unbinned_to_angstrom_xyz(pixels - subtomogram_shift(table, path, _PIXEL_ORIGINS), context, format_name)
    found = pixel_size_in_file(table, optics, path)
    pixel = unbinned_pixel_xyz(context, format_name) if found is None else found[0][:, None]
    return unbinned_to_angstrom_xyz(pixels - subtomogram_shift(table, path) / pixel, context, format_name)


def _read_m(table: pd.DataFrame, path: Path) -> tuple[np.ndarray, pd.DataFrame]:
    warnings.warn(
        f"{path}: these are M's own particles; their first positions are taken as Å from the tomogram's corner.",
        ParticleListWarning,
        stacklevel=4,
    )
    centers = np.stack([number_column(table, column, "M", path) for column in M_COORDINATES], axis=1)
    return centers, table.rename(columns=_M_NAMES)


def _needed(path: Path, format_name: str) -> tuple[str, ...]:
    """The columns of the positions: M's in a Warp list without the others'."""
    if format_name == "warp":
        columns = star_columns(path)
        if M_COORDINATES[0] in columns and COORDINATES[0] not in columns:
            return M_COORDINATES
    return COORDINATES


def _says(path: Path, context: TomogramContext, format_name: str) -> Says:
    needed = _needed(path, format_name)
    if needed == M_COORDINATES:
        return Says(counts="angstrom")
    return says(path, format_name, needed, (_NAME_COLUMN[format_name], "rlnTomoName", "rlnMicrographName"))


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
    if sniff_star(head, M_COORDINATES[0]) and not sniff_star(head, COORDINATES[0]):
        return format_name == "warp"
    if not sniff_star(head, "rlnCoordinateZ") or sniff_star(head, "rlnCenteredCoordinateZAngst"):
        return False
    if sniff_star(head, "rlnTomoName"):
        return format_name == "relion4"  # WarpTools 2 writes it, too, with names that end in .tomostar
    is_warp = sniff_star(head, "rlnMicrographName") and b".tomostar" in head
    return format_name == ("warp" if is_warp else "relion3")


def _format(name: str, description: str) -> Format:
    return Format(
        name=name,
        description=description,
        suffixes=(".star",),
        keeps=frozenset({"score", "class", "orientation", "subvoxel", "tomogram"}),
        read=partial(read, format_name=name),
        write=partial(write, format_name=name),
        sniff=partial(_sniff, format_name=name),
        counts="unbinned",
        says=partial(_says, format_name=name),
    )


RELION4 = _format("relion4", "RELION 4 STAR: unbinned pixels from the corner, rlnTomoName")
WARP = _format("warp", "Warp STAR: unbinned pixels from the corner, rlnMicrographName TS_01.tomostar")
RELION3 = _format("relion3", "RELION 3 STAR: unbinned pixels from the corner, rlnMicrographName")
