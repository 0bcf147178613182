"""Dynamo .tbl: whitespace columns; 24-26 position, 4-6 shift, 7-9 angles (zxz), pixels; tomogram names in a .doc."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from custom_transforms.files.text import read_text
from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.binning import angstrom_to_unbinned_xyz, unbinned_pixel_xyz, unbinned_to_angstrom_xyz
from scripts.particles.shared.context import TomogramContext, tomogram_base_name
from scripts.particles.shared.declared import Says, usable_pixel
from scripts.particles.shared.format import (
    Format,
    optional_angles,
    optional_numbers,
    to_numbers,
    write_text,
)
from scripts.particles.shared.numbered_tables import (
    known_rotation,
    names_of_numbers,
    numbers_of_particles,
    score_or_zero,
)
from scripts.particles.shared.orientations import dynamo_angles, rotation_from_dynamo

__all__ = ["DYNAMO", "read", "says", "write"]

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
    rows = _rows(path)
    if not rows:
        return ParticleList(np.zeros((0, 3)))

    def columns(*numbers: int) -> np.ndarray:
        values = [to_numbers(_column(rows, n), f"number {n}", "dynamo", path) for n in numbers]
        return np.stack(values, axis=1)

    def optional(number: int) -> np.ndarray:
        return optional_numbers(_column(rows, number), f"number {number}", "dynamo", path)

    angles = pd.DataFrame({str(n): _column(rows, n) for n in _ANGLES})
    classes = names_of_numbers(optional(_CLASS), f"{path}: dynamo column {_CLASS}")
    return ParticleList(
        unbinned_to_angstrom_xyz(columns(*_POSITION) + columns(*_SHIFT), context, "dynamo"),
        tomogram=names_of_numbers(
            columns(_TOMOGRAM)[:, 0], f"{path}: dynamo column {_TOMOGRAM}", _read_doc(path.with_suffix(".doc"))
        ),
        class_name=[context.class_names.get(n, n) for n in classes],
        score=optional(_SCORE),
        rotation=known_rotation(
            optional_angles(angles, tuple(map(str, _ANGLES)), "dynamo", path), rotation_from_dynamo
        ),
    )


def says(path: Path, context: TomogramContext) -> Says:
    """Å per pixel (column 36) and the tomograms that the .doc names."""
    rows = _rows(path)
    names = tuple(sorted(set(_read_doc(path.with_suffix(".doc")).values())))
    found = {usable_pixel(row[_PIXEL - 1]) for row in rows if len(row) >= _PIXEL}
    pixels = [pixel for pixel in found if pixel is not None]
    if len(pixels) > 1:
        raise ValueError(
            f"{path}: dynamo column {_PIXEL} (Å per pixel) goes from {min(pixels):g} to {max(pixels):g}. "
            "Split the list by it."
        )
    return Says(pixels[0] if pixels else None, f"column {_PIXEL} (Å per pixel)", tomograms=names)


def _rows(path: Path) -> list[list[str]]:
    lines = read_text(path, "a dynamo list").split("\n")
    rows = [(number, line.split()) for number, line in enumerate(lines, start=1) if line.strip()]
    for number, words in rows:
        if len(words) < _POSITION[2]:
            raise ValueError(f"{path}: dynamo row {number}: expected at least 26 columns, got {len(words)}.")
        if len(words) != len(rows[0][1]):
            raise ValueError(
                f"{path}: dynamo row {number}: expected {len(rows[0][1])} columns as in the first row, "
                f"got {len(words)}. Is the file complete?"
            )
    return [words for _, words in rows]


def _column(rows: list[list[str]], number: int) -> list[str]:
    return [words[number - 1] for words in rows]


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
    if path.with_suffix(".doc").exists() or not all(name.isdecimal() for name in names):
        rows = sorted(set(zip(tomograms, names, strict=True)))  # also over an old one, whose names would be taken
        if broken := [name for _, name in rows if not name.strip() or name.splitlines() != [name]]:
            raise ValueError(f"dynamo: a .doc cannot hold the tomogram name {broken[0]!r}. Rename it.")
        write_text(path.with_suffix(".doc"), "".join(f"{number} {name}\n" for number, name in rows))
    write_text(path, "".join(" ".join(f"{value:.6f}".rstrip("0").rstrip(".") for value in row) + "\n" for row in table))


def _read_doc(path: Path) -> dict[int, str]:
    if not path.is_file():
        return {}
    rows = [line.split(maxsplit=1) for line in read_text(path, "a dynamo list").split("\n") if line.strip()]
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
    counts="unbinned",
    says=says,
    beside=(".doc",),
)
