"""STOPGAP motive list (.star): `orig_x/y/z` plus shifts in pixels that count from 1, angles as in TOM."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.binning import angstrom_to_unbinned_xyz, unbinned_to_angstrom_xyz
from scripts.particles.shared.context import TomogramContext
from scripts.particles.shared.format import Format, number_column, optional_angles, optional_column
from scripts.particles.shared.numbered_tables import (
    known_rotation,
    names_of_numbers,
    numbers_of_particles,
    score_or_zero,
)
from scripts.particles.shared.orientations import rotation_from_tom, tom_angles
from scripts.particles.shared.star_tables import read_particle_block, sniff_star, write_block

__all__ = ["STOPGAP", "read", "write"]

_POSITION, _SHIFT, _ANGLES = ("orig_x", "orig_y", "orig_z"), ("x_shift", "y_shift", "z_shift"), ("phi", "psi", "the")


def read(path: Path, context: TomogramContext) -> ParticleList:
    """Read; index = orig + shift - 1."""
    table, _ = read_particle_block(path, "stopgap", _POSITION)
    if len(table) == 0:
        return ParticleList(np.zeros((0, 3)))
    position = np.stack([number_column(table, c, "stopgap", path) for c in _POSITION], axis=1)
    shift = np.stack([number_column(table, c, "stopgap", path, missing=0.0) for c in _SHIFT], axis=1)
    angles = optional_angles(table, _ANGLES, "stopgap", path) if set(_ANGLES) <= set(table.columns) else None
    classes = names_of_numbers(optional_column(table, "class", "stopgap", path), f"{path}: stopgap column class")
    numbers = number_column(table, "tomo_num", "stopgap", path, missing=1.0)
    return ParticleList(
        unbinned_to_angstrom_xyz(position + shift - 1, context, "stopgap"),
        tomogram=names_of_numbers(numbers, f"{path}: stopgap column tomo_num"),
        class_name=[context.class_names.get(n, n) for n in classes],
        score=optional_column(table, "score", "stopgap", path),
        rotation=known_rotation(angles, rotation_from_tom),
    )


def write(particles: ParticleList, path: Path, context: TomogramContext) -> None:
    """Write STOPGAP's 16 columns; tomograms and classes become numbers, unknown angles 0 (it has no 'unknown')."""
    tomograms, classes, _ = numbers_of_particles(particles, context)
    count = len(particles)
    pixels = np.zeros((0, 3))
    if count:
        pixels = angstrom_to_unbinned_xyz(particles.centers_xyz_angstrom, context, "stopgap") + 1
    angles = np.zeros((count, 3)) if particles.rotation is None else tom_angles(particles.rotation)
    number = np.arange(1, count + 1)
    columns: dict[str, object] = {
        "motl_idx": number,
        "tomo_num": tomograms,
        "object": np.ones(count, dtype=int),
        "subtomo_num": number,
        "halfset": np.where(number % 2 == 1, "A", "B"),
        **dict(zip(_POSITION, pixels.T, strict=True)),
        "score": score_or_zero(particles),
        **{name: np.zeros(count) for name in _SHIFT},
        **dict(zip(_ANGLES, angles.T, strict=True)),
        "class": classes,
    }
    write_block(path, columns, block="stopgap_motivelist")


STOPGAP = Format(
    name="stopgap",
    description="STOPGAP motive list: pixels that count from 1, phi psi the",
    suffixes=(".star",),
    keeps=frozenset({"score", "class", "orientation", "subvoxel", "tomogram"}),
    read=read,
    write=write,
    sniff=lambda head: sniff_star(head, "orig_x"),
    counts="unbinned",
)
