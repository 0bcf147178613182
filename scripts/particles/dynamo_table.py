"""Dynamo .tbl: whitespace columns; 24-26 position, 4-6 shift, 7-9 angles (zxz), pixels; tomogram names in a .doc."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.binning import angstrom_to_unbinned_xyz, unbinned_pixel_xyz, unbinned_to_angstrom_xyz
from scripts.particles.shared.context import TomogramContext, tomogram_base_name
from scripts.particles.shared.format import Format, read_text, to_numbers, write_text
from scripts.particles.shared.numbered_tables import (
    known_rotation,
    names_of_numbers,
    numbers_of_particles,
    score_or_zero,
)
from scripts.particles.shared.orientations import dynamo_angles, rotation_from_dynamo

__all__ = ["DYNAMO", "read", "write"]

# 1-based columns of Dynamo's table convention
_SHIFT, _ANGLES, _SCORE, _TOMOGRAM, _CLASS, _POSITION, _PIXEL, _COUNT = (
    (4, 5, 6),
    (7, 8, 9),
    10,
    20,
    22,
    (24, 25, 26),
    36,
    42,
)


def read(path: Path, context: TomogramContext) -> ParticleList:
    """Read; position = x + dx. A file of the same name ending in .doc names the tomograms."""
    lines = [line.split() for line in read_text(path, "dynamo").splitlines() if line.strip()]
    for number, words in enumerate(lines, start=1):
        if len(words) < _POSITION[2]:
            raise ValueError(f"{path}: dynamo row {number}: expected at least 26 columns, got {len(words)}.")
    if not lines:
        return ParticleList(np.zeros((0, 3)))

    def columns(*numbers: int) -> np.ndarray:
        values = [to_numbers([words[n - 1] for words in lines], f"number {n}", "dynamo", path) for n in numbers]
        return np.stack(values, axis=1)

    pixels = columns(*_POSITION) + columns(*_SHIFT)
    return ParticleList(
        unbinned_to_angstrom_xyz(pixels, context, "dynamo"),
        tomogram=names_of_numbers(columns(_TOMOGRAM)[:, 0], _read_doc(path.with_suffix(".doc"))),
        class_name=[context.class_names.get(n, n) for n in names_of_numbers(columns(_CLASS)[:, 0])],
        score=columns(_SCORE)[:, 0],
        rotation=known_rotation(columns(*_ANGLES), rotation_from_dynamo),
    )


def write(particles: ParticleList, path: Path, context: TomogramContext) -> None:
    """Write 42 columns, and the .doc where tomograms have names; unknown angles stay 0 as in Dynamo's own picks."""
    tomograms, classes, names = numbers_of_particles(particles, context)
    count = len(particles)
    table = np.zeros((count, _COUNT))
    if count:
        table[:, [n - 1 for n in _POSITION]] = angstrom_to_unbinned_xyz(
            particles.centers_xyz_angstrom, context, "dynamo"
        )
        table[:, _PIXEL - 1] = unbinned_pixel_xyz(context, "dynamo")[0]
    if particles.rotation is not None:
        table[:, [n - 1 for n in _ANGLES]] = dynamo_angles(particles.rotation)
    table[:, 0] = np.arange(1, count + 1)
    table[:, 1:3] = 1  # to be aligned, to be averaged
    table[:, _SCORE - 1] = score_or_zero(particles)
    table[:, _TOMOGRAM - 1] = tomograms
    table[:, _CLASS - 1] = classes
    if not all(name.isdecimal() for name in names):
        rows = sorted(set(zip(tomograms, names, strict=True)))
        write_text(path.with_suffix(".doc"), "".join(f"{number} {name}\n" for number, name in rows))
    write_text(path, "".join(" ".join(f"{value:.6f}".rstrip("0").rstrip(".") for value in row) + "\n" for row in table))


def _read_doc(path: Path) -> dict[int, str]:
    if not path.is_file():
        return {}
    rows = [line.split(maxsplit=1) for line in read_text(path, "dynamo").splitlines() if line.strip()]
    if not all(len(row) == 2 and row[0].isdecimal() for row in rows):
        raise ValueError(f"{path}: expected lines of a tomogram's number and file. Correct or remove the .doc file.")
    return {int(number): tomogram_base_name(name.strip()) for number, name in rows}


def _sniff(head: bytes) -> bool:
    words = head.split(b"\n", 1)[0].split()
    return len(words) >= 26 and all(word[:1] in b"-+.0123456789" for word in words)


DYNAMO = Format(
    name="dynamo",
    description="Dynamo .tbl (+ .doc): pixels from the corner, zxz angles",
    suffixes=(".tbl",),
    keeps=frozenset({"score", "class", "orientation", "subvoxel", "tomogram"}),
    read=read,
    write=write,
    sniff=_sniff,
)
