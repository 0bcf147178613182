"""TOM / AV3 motive list (.em): 20 numbers a particle; 8-10 position and 11-13 shift in pixels that count from 1."""

from __future__ import annotations

import struct
from pathlib import Path

import emfile
import numpy as np
import pandas as pd

from custom_transforms.files.text import check_size
from custom_transforms.files.whole_files import atomic_path
from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.binning import angstrom_to_unbinned_xyz, unbinned_to_angstrom_xyz
from scripts.particles.shared.context import TomogramContext
from scripts.particles.shared.format import Format, optional_angles, optional_numbers
from scripts.particles.shared.numbered_tables import (
    known_rotation,
    names_of_numbers,
    numbers_of_particles,
    score_or_zero,
)
from scripts.particles.shared.orientations import rotation_from_tom, tom_angles

__all__ = ["EM_MOTIVE_LIST", "read", "write"]

_HEADER_BYTES = 512
_ROWS = 20
_SCORE, _NUMBER, _TOMOGRAM, _POSITION, _SHIFT, _ANGLES, _CLASS = 0, 3, 4, (7, 8, 9), (10, 11, 12), (16, 17, 18), 19


def read(path: Path, context: TomogramContext) -> ParticleList:
    """Read; index = position + shift - 1."""
    table = _read_table(path)
    if len(table) == 0:
        return ParticleList(np.zeros((0, 3)))
    pixels = table[:, _POSITION] + table[:, _SHIFT] - 1
    angles = pd.DataFrame({name: table[:, row] for name, row in zip(("phi", "psi", "theta"), _ANGLES, strict=True)})
    classes = names_of_numbers(optional_numbers(table[:, _CLASS], "row 20", "em", path), f"{path}: em row 20 (class)")
    return ParticleList(
        unbinned_to_angstrom_xyz(pixels, context, "em"),
        tomogram=names_of_numbers(table[:, _TOMOGRAM], f"{path}: em row 5 (tomogram)"),
        class_name=[context.class_names.get(n, n) for n in classes],
        score=optional_numbers(table[:, _SCORE], "row 1", "em", path),
        rotation=known_rotation(optional_angles(angles, tuple(angles.columns), "em", path), rotation_from_tom),
    )


def write(particles: ParticleList, path: Path, context: TomogramContext) -> None:
    """Write float32; tomograms and classes become numbers, unknown angles 0 (the format has no 'unknown')."""
    if len(particles) == 0:
        raise ValueError("em: an .em file cannot hold an empty list. Write csv or star instead.")
    tomograms, classes, _ = numbers_of_particles(particles, context)
    table = np.zeros((len(particles), _ROWS), dtype=np.float32)
    table[:, _POSITION] = angstrom_to_unbinned_xyz(particles.centers_xyz_angstrom, context, "em") + 1
    if particles.rotation is not None:
        table[:, _ANGLES] = tom_angles(particles.rotation)
    table[:, _SCORE], table[:, _NUMBER] = score_or_zero(particles), np.arange(1, len(particles) + 1)
    table[:, _TOMOGRAM], table[:, _CLASS] = tomograms, classes
    with atomic_path(path) as temporary:
        emfile.write(temporary, table[None], overwrite=True)


def _read_table(path: Path) -> np.ndarray:
    check_size(path, "an em list")
    size = path.stat().st_size
    if size < _HEADER_BYTES:
        raise ValueError(f"{path}: em needs a header of 512 bytes, got {size}. Is the file complete?")
    with open(path, "rb") as file:
        _, _, _, code, x, y, z = struct.unpack("<4b3i", file.read(16))
    if x != _ROWS or z != 1 or y < 1 or code not in (5, 9):
        raise ValueError(
            f"{path}: expected a motive list of 20 x n x 1 floats, got {x} x {y} x {z} of type {code}. "
            "Is it a volume instead of a list?"
        )
    expected = _HEADER_BYTES + x * y * (4 if code == 5 else 8)
    if size != expected:
        raise ValueError(f"{path}: em announces {y} particles in {expected} bytes, got {size}. Is it complete?")
    _, data = emfile.read(path)
    table = np.asarray(data[0], dtype=np.float64)
    needed = np.isfinite(table[:, [_TOMOGRAM, *_POSITION, *_SHIFT]]).all(axis=1)
    if not needed.all():
        row = int(np.argmin(needed))
        raise ValueError(
            f"{path}: em particle {row + 1} has a position, shift or tomogram that is not finite. Remove it."
        )
    return table


def _sniff(head: bytes) -> bool:
    return len(head) >= 16 and head[3] in (5, 9) and struct.unpack("<i", head[4:8])[0] == _ROWS


EM_MOTIVE_LIST = Format(
    name="em",
    description="TOM / AV3 motive list: pixels that count from 1, phi psi theta",
    suffixes=(".em",),
    keeps=frozenset({"score", "class", "orientation", "subvoxel", "tomogram"}),
    read=read,
    write=write,
    sniff=_sniff,
    counts="unbinned",
)
