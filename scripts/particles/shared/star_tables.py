"""What the STAR dialects share: finding the particle block, columns, writing."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from custom_transforms.files.text import read_text
from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.context import TomogramContext, tomogram_base_name
from scripts.particles.shared.declared import Says
from scripts.particles.shared.format import (
    class_numbers,
    known_text,
    number_column,
    optional_angles,
    optional_column,
    require_columns,
    whole_number_text,
    write_text,
)
from scripts.particles.shared.orientations import relion_angles, rotation_from_relion
from scripts.particles.shared.star_text import parse_star, star_text

__all__ = [
    "ANGLES",
    "CLASS_NUMBER",
    "ORIGINS",
    "PARTICLE_CLASS",
    "PIXEL_SIZE",
    "SCORES",
    "angle_columns",
    "angles",
    "build_particles",
    "class_columns",
    "describe_star",
    "optics_column",
    "particle_names",
    "pixel_size_in_file",
    "read_particle_block",
    "says",
    "score_column",
    "sniff_star",
    "star_columns",
    "subtomogram_shift",
    "texts",
    "tomogram_names",
    "write_block",
]

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
SUBTOMOGRAM_ANGLES = ("rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi")
ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst")
PIXEL_SIZE = "rlnTomoTiltSeriesPixelSize"
SCORE = "rlnAutopickFigureOfMerit"
CLASS_NUMBER = "rlnClassNumber"
PARTICLE_CLASS = "rlnParticleName"
SCORES = (  # the first that is there; pytom-match-pick writes rlnLCCmax
    SCORE, "rlnTomoParticleScore", "rlnLCCmax", "wrpAutopickFigureOfMerit", "rlnMaxValueProbDistribution",
)  # fmt: skip

# Columns that tell what a STAR file is, the most telling first.
_LOOKS = (
    ("rlnTomoParticlesFile", "an optimisation set: give the particle file that it names"),
    ("rlnCenteredCoordinateXAngst", "a RELION 5 list: read it with --from_format relion5"),
    ("orig_x", "a STOPGAP motive list: read it with --from_format stopgap"),
    ("wrpCoordinateX1", "M's own particles: read it with --from_format warp"),
    ("rlnCoordinateZ", "a list in pixels: read it with --from_format relion4 (relion3, warp)"),
    ("CoordinateX", "a crYOLO cbox: read it with --from_format cbox"),
    ("rlnTomoTiltSeriesStarFile", "a tomograms.star: give it with --tomograms_star, beside the list of particles"),
    ("rlnTomoSizeX", "a tomograms.star: give it with --tomograms_star, beside the list of particles"),
    ("rlnTomoNominalStageTiltAngle", "a tilt series: give the list of particles"),
    ("rlnMicrographMovieName", "a tilt series: give the list of particles"),
    ("wrpMovieName", "a tilt series (.tomostar): give the list of particles"),
    ("rlnCoordinateX", "a list of 2D particles, without z: give the list of a tomogram"),
    ("rlnImageName", "a list of particle images without their positions: give the list that they were cut from"),
)


def read_particle_block(path: Path, format_name: str, needed: tuple[str, ...]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The block with the particles, and the optics block (empty if there is none).

    Raises
    ------
    ValueError
        If the file is not STAR, or no block holds the ``needed`` columns; lists what the blocks hold.
    """
    text = read_text(path, f"a {format_name} list")
    if "data_" not in text.lower():
        raise ValueError(f"{path}: {format_name} needs a STAR file with a line data_particles; found none.")
    tables = parse_star(text, path)
    optics = tables.get("optics", pd.DataFrame())
    for table in tables.values():
        if set(needed) <= set(table.columns):
            return table, optics
    if looks := describe_star([column for table in tables.values() for column in table.columns]):
        raise ValueError(
            f"{path}: {format_name} needs the column {', '.join(needed)}, but this looks like {looks}. "
            f"It has the columns {_listed(tables)}."
        )
    candidates = [table for name, table in tables.items() if name not in ("optics", "general")]
    require_columns(max(candidates, key=lambda t: t.shape[1], default=pd.DataFrame()), needed, format_name, path)
    raise AssertionError("unreachable: require_columns raises")


def describe_star(columns: list[str]) -> str:
    """What a STAR file with these columns is, and what to do with it; "" if it is not known.

    Examples
    --------
    >>> describe_star(["rlnTomoName", "rlnTomoTiltSeriesStarFile", "rlnTomoSizeX"])
    'a tomograms.star: give it with --tomograms_star, beside the list of particles'
    """
    return next((what for column, what in _LOOKS if column in columns), "")


def star_columns(path: Path) -> list[str]:
    """Every column of every block of a STAR file."""
    return [column for table in parse_star(read_text(path, "a STAR file"), path).values() for column in table.columns]


def _listed(tables: dict[str, pd.DataFrame]) -> str:
    return ", ".join(column for table in tables.values() for column in list(table.columns)[:30]) or "none"


def build_particles(
    table: pd.DataFrame, centers_xyz_angstrom: np.ndarray, tomogram: list[str], context: TomogramContext, path: Path
) -> ParticleList:
    """A list from the columns that all RELION-like dialects share (angles, class, score); the rest goes to extra."""
    score = next((c for c in SCORES if c in table.columns), SCORE)
    return ParticleList(
        centers_xyz_angstrom,
        tomogram=np.array(tomogram, dtype=str),
        class_name=[context.class_names.get(name, name) for name in _class_names(table)],
        score=optional_column(table, score, "STAR", path),
        rotation=angles(table, path),
        extra=table.drop(columns=[c for c in table.columns if c.startswith(("rlnAngle", "rlnCoordinate"))]),
    )


def angles(table: pd.DataFrame, path: Path) -> Rotation | None:
    """Orientation of every particle, or None without all three angle columns.

    With `rlnTomoSubtomogram*` (RELION 4, 5) the subtomogram itself is turned in the tomogram, and the particle
    within it.
    """
    if len(table) == 0:
        return None
    subtomogram = _zyz(table, SUBTOMOGRAM_ANGLES, path)
    values = optional_angles(table, ANGLES, "STAR", path) if set(ANGLES) <= set(table.columns) else None
    particle = None if values is None else rotation_from_relion(values)
    if subtomogram is None or particle is None:
        return particle if subtomogram is None else subtomogram
    return subtomogram * particle


def subtomogram_shift(table: pd.DataFrame, path: Path, origins: tuple[str, ...] = ORIGINS) -> np.ndarray:
    """What to subtract from each coordinate, shape (n, 3): `rlnOrigin*` turned by the subtomogram alone."""
    origin = np.stack([number_column(table, c, "STAR", path, missing=0.0) for c in origins], axis=1)
    subtomogram = _zyz(table, SUBTOMOGRAM_ANGLES, path) if len(table) else None
    return origin if subtomogram is None else subtomogram.apply(origin)


def optics_column(table: pd.DataFrame, optics: pd.DataFrame, column: str, path: Path) -> np.ndarray | None:
    """A number per particle from its own row or its optics group, shape (n,); None if neither has it."""
    if column in table.columns:
        return optional_column(table, column, "STAR", path)
    if column not in optics.columns or len(optics) == 0:
        return None
    values = optional_column(optics, column, "STAR optics", path)
    if len(optics) == 1 or "rlnOpticsGroup" not in table.columns:
        return np.full(len(table), values[0])
    by_group = dict(zip(number_column(optics, "rlnOpticsGroup", "STAR optics", path), values, strict=True))
    groups = pd.Series(number_column(table, "rlnOpticsGroup", "STAR", path))
    unknown = sorted(set(groups) - set(by_group))
    if unknown:
        raise ValueError(f"{path}: optics group {unknown[0]:g} of the particles is not in the optics table.")
    return groups.map(by_group).to_numpy(dtype=float)


def tomogram_names(particles: ParticleList, context: TomogramContext, format_name: str) -> list[str]:
    """A name for every particle: its own, else the context's; an error if neither exists."""
    names = [str(name) for name in particles.tomogram]
    if not all(names):
        default = str(context.require("name", format_name))
        names = [name or default for name in names]
    return names


def pixel_size_in_file(table: pd.DataFrame, optics: pd.DataFrame, path: Path) -> tuple[np.ndarray, str] | None:
    """Å per pixel of every particle, shape (n,), and the column that says it; None if no column does.

    `rlnDetectorPixelSize` is in µm if there is a magnification; pytom writes Å without. An image is binned against
    the coordinates by `rlnTomoSubtomogramBinning`.
    """
    for column in (PIXEL_SIZE, "rlnDetectorPixelSize", "rlnPixelSize", "rlnMicrographPixelSize", "rlnImagePixelSize"):
        pixel = optics_column(table, optics, column, path)
        if pixel is None or len(pixel) == 0 or np.isnan(pixel).any():
            continue
        if column == "rlnDetectorPixelSize":
            magnification = optics_column(table, optics, "rlnMagnification", path)
            pixel = pixel if magnification is None else pixel * 1e4 / magnification
        if column == "rlnImagePixelSize":
            binning = optics_column(table, optics, "rlnTomoSubtomogramBinning", path)
            pixel = pixel if binning is None else pixel / binning
        if not (pixel > 0).all():
            raise ValueError(f"{path}: {column}: expected Å above 0, got {pixel.min():g}. Correct the column.")
        return pixel, column
    return None


def says(path: Path, format_name: str, needed: tuple[str, ...], name_columns: tuple[str, ...]) -> Says:
    """What a STAR list says of the tomograms it belongs to."""
    table, optics = read_particle_block(path, format_name, needed)
    names = tuple(sorted({tomogram_base_name(name) for name in texts(table, *name_columns) if name}))
    found = pixel_size_in_file(table, optics, path)
    if found is None:
        return Says(tomograms=names)
    pixel, column = found
    if np.ptp(pixel) > 0.02 * pixel.min():
        raise ValueError(
            f"{path}: {column} goes from {pixel.min():g} to {pixel.max():g} Å; expected the tilt series of one list "
            "to have one pixel size. Split the list by it."
        )
    return Says(float(np.median(pixel)), column, tomograms=names, of_tilt_series=column == PIXEL_SIZE)


def texts(table: pd.DataFrame, *columns: str) -> list[str]:
    """The first column that says something, by row; "" where none does."""
    found = [""] * len(table)
    for column in columns:
        if column in table.columns:
            found = [old or known_text(new) for old, new in zip(found, table[column], strict=True)]
    return found


def class_columns(particles: ParticleList, context: TomogramContext) -> dict[str, object]:
    """`rlnClassNumber`, and `rlnParticleName` where classes have names that are not numbers; {} without classes."""
    names = [str(name) for name in particles.class_name]
    if not any(names):
        return {}
    numbers = class_numbers(particles, context)
    if all(name.isdecimal() for name in names):
        return {CLASS_NUMBER: numbers}
    return {CLASS_NUMBER: numbers, PARTICLE_CLASS: [name or "unknown" for name in names]}


def angle_columns(particles: ParticleList) -> dict[str, np.ndarray]:
    """`rlnAngleRot/Tilt/Psi`, or {} without orientations: zeros would be trusted."""
    if particles.rotation is None:
        return {}
    return dict(zip(ANGLES, relion_angles(particles.rotation).T, strict=True))


def score_column(particles: ParticleList) -> dict[str, np.ndarray]:
    """`rlnAutopickFigureOfMerit`, or {} if any score is unknown."""
    return {SCORE: np.asarray(particles.score)} if len(particles) and np.isfinite(particles.score).all() else {}


def particle_names(tomograms: list[str]) -> dict[str, list[str]]:
    """`rlnTomoParticleName`: RELION 4 and 5 give it to every particle, and other programs read no list without.

    Examples
    --------
    >>> particle_names(["TS_01", "TS_02", "TS_01"])
    {'rlnTomoParticleName': ['TS_01/1', 'TS_02/1', 'TS_01/2']}
    """
    seen: Counter[str] = Counter()
    names = []
    for tomogram in tomograms:
        seen[tomogram] += 1
        names.append(f"{tomogram}/{seen[tomogram]}")
    return {"rlnTomoParticleName": names}


def write_block(path: Path, columns: dict[str, object], block: str = "particles") -> None:
    """Write one STAR block; an empty list keeps its header."""
    write_text(path, star_text(columns, block))  # type: ignore[arg-type]


def sniff_star(head: bytes, column: str) -> bool:
    """Whether a file begins like STAR and names a column."""
    text = head.decode("utf-8", "replace")
    return "data_" in text.lower() and re.search(rf"^\s*_{column}\b", text, re.MULTILINE) is not None


def _class_names(table: pd.DataFrame) -> list[str]:
    return [whole_number_text(name) for name in texts(table, PARTICLE_CLASS, CLASS_NUMBER)]


def _zyz(table: pd.DataFrame, columns: tuple[str, ...], path: Path) -> Rotation | None:
    if not set(columns) <= set(table.columns):
        return None
    return rotation_from_relion(np.stack([number_column(table, c, "STAR", path) for c in columns], axis=1))
