"""RELION 5 STAR: `rlnCenteredCoordinate*Angst`, Å from the center of the unbinned tomogram."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.binning import angstrom_to_unbinned_xyz, unbinned_pixel_xyz, unbinned_to_angstrom_xyz
from scripts.particles.shared.context import ParticleListWarning, TomogramContext, tomogram_base_name
from scripts.particles.shared.format import Format, number_column
from scripts.particles.shared.star_tables import (
    PIXEL_SIZE,
    angle_columns,
    build_particles,
    class_columns,
    particle_names,
    pixel_size_in_file,
    read_particle_block,
    says,
    score_column,
    sniff_star,
    subtomogram_shift,
    texts,
    tomogram_names,
    write_block,
)

__all__ = ["COORDINATES", "RELION5", "read", "write"]

COORDINATES = ("rlnCenteredCoordinateXAngst", "rlnCenteredCoordinateYAngst", "rlnCenteredCoordinateZAngst")


def read(path: Path, context: TomogramContext) -> ParticleList:
    """Read; needs the voxel size, and the unbinned size of each tomogram (tomograms.star, or size and binning).

    unbinned pixel = Å / pixel size + size / 2 (see `TomogramContext.center_rule`), minus the particle's own shift;
    a pixel size in the file (`rlnTomoTiltSeriesPixelSize`) is used before voxel size / binning.
    """
    table, optics = read_particle_block(path, "relion5", COORDINATES)
    centered = np.stack([number_column(table, c, "relion5", path) for c in COORDINATES], axis=1)
    centered = centered - subtomogram_shift(table, path)
    names = [tomogram_base_name(name) if name else context.name for name in texts(table, "rlnTomoName")]
    if len(table) == 0:
        return build_particles(table, centered, names, context, path)
    pixel: np.ndarray = unbinned_pixel_xyz(context, "relion5")
    found = pixel_size_in_file(table, optics, path)
    if found is not None and found[1] == PIXEL_SIZE:
        pixel = found[0][:, None]
    unbinned = centered / pixel + _middle_xyz(names, context)
    centers = unbinned_to_angstrom_xyz(unbinned, context, "relion5")
    return build_particles(table, centers, names, context, path)


def write(particles: ParticleList, path: Path, context: TomogramContext) -> None:
    """Write tomogram name, centered Å, and angles, class and score where they are known."""
    names = [tomogram_base_name(name) for name in tomogram_names(particles, context, "relion5")]
    centered = np.zeros((0, 3))
    if len(particles):
        unbinned = angstrom_to_unbinned_xyz(particles.centers_xyz_angstrom, context, "relion5")
        centered = (unbinned - _middle_xyz(names, context)) * unbinned_pixel_xyz(context, "relion5")
    columns = {
        "rlnTomoName": names,
        **particle_names(names),
        **dict(zip(COORDINATES, centered.T, strict=True)),
        **angle_columns(particles),
        **class_columns(particles, context),
        **score_column(particles),
    }
    write_block(path, columns)


def _middle_xyz(names: list[str], context: TomogramContext) -> np.ndarray:
    """Where each particle's tomogram counts from, in unbinned pixels, shape (n, 3)."""
    offset = 0.0 if context.center_rule == "size/2" else 1.0
    found = {name: context.unbinned_size_xyz(name, "relion5") for name in sorted(set(names))}
    assumed = [name for name, (_, source) in found.items() if source == "size x binning"]
    if assumed and context.factor != 1:
        size = found[assumed[0]][0]
        warnings.warn(
            f"relion5: the unbinned size of {assumed[0]} is taken as size x binning = "
            f"{' x '.join(f'{n:g}' for n in size)} (x, y, z). If it was cropped, give --tomograms_star.",
            ParticleListWarning,
            stacklevel=4,
        )
    return np.stack([found[name][0] / 2 - offset for name in names])


RELION5 = Format(
    name="relion5",
    description="RELION 5 STAR: Å from the center of the unbinned tomogram",
    suffixes=(".star",),
    keeps=frozenset({"score", "class", "orientation", "subvoxel", "tomogram"}),
    read=read,
    write=write,
    sniff=lambda head: sniff_star(head, "rlnCenteredCoordinateXAngst"),
    counts="unbinned",
    says=lambda path, context: says(path, "relion5", COORDINATES, ("rlnTomoName",)),
    centered=True,
)
