"""What the STAR dialects share: finding the particle block, columns, writing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import starfile
from scipy.spatial.transform import Rotation

from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.binning import unbinned_pixel_xyz
from scripts.particles.shared.context import TomogramContext
from scripts.particles.shared.format import atomic_path, class_numbers, number_column, read_text, require_columns
from scripts.particles.shared.orientations import relion_angles, rotation_from_relion

__all__ = [
    "ANGLES",
    "CLASS_NUMBER",
    "ORIGINS",
    "PARTICLE_CLASS",
    "SCORE",
    "angles",
    "build_particles",
    "class_columns",
    "optics_column",
    "particle_names",
    "pixel_size_in_file",
    "read_particle_block",
    "sniff_star",
    "subtomogram_shift",
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


def read_particle_block(path: Path, format_name: str, needed: tuple[str, ...]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The block with the particles, and the optics block (empty if there is none).

    Raises
    ------
    ValueError
        If the file is not STAR, or no block holds the ``needed`` columns; lists what the blocks hold.
    """
    text = read_text(path, format_name)
    if "data_" not in text:
        raise ValueError(f"{path}: {format_name} needs a STAR file with a line data_particles; found none.")
    try:
        blocks = starfile.read(path, always_dict=True, parse_as_string=["rlnTomoName", "rlnMicrographName"])
    except Exception as error:  # starfile raises whatever pandas or its parser raise; all mean an unreadable file
        raise ValueError(f"{path}: not a readable STAR file ({error}). Is it complete?") from error
    tables = {
        name: block if isinstance(block, pd.DataFrame) else pd.DataFrame([block]) for name, block in blocks.items()
    }
    optics = tables.get("optics", pd.DataFrame())
    for table in tables.values():
        if set(needed) <= set(table.columns):
            return table.reset_index(drop=True), optics
    candidates = [table for name, table in tables.items() if name not in ("optics", "general")]
    require_columns(candidates[0] if candidates else pd.DataFrame(), needed, format_name, path)
    raise AssertionError("unreachable: require_columns raises")


def build_particles(
    table: pd.DataFrame, centers_xyz_angstrom: np.ndarray, tomogram: list[str], context: TomogramContext, path: Path
) -> ParticleList:
    """A list from the columns that all RELION-like dialects share (angles, class, score); the rest goes to extra."""
    score = next((c for c in (SCORE, "rlnTomoParticleScore", "wrpAutopickFigureOfMerit") if c in table.columns), SCORE)
    return ParticleList(
        centers_xyz_angstrom,
        tomogram=np.array(tomogram, dtype=str),
        class_name=[context.class_names.get(name, name) for name in _class_names(table)],
        score=number_column(table, score, "STAR", path, missing=np.nan),
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
    particle = _zyz(table, ANGLES, path)
    if subtomogram is None or particle is None:
        return particle if subtomogram is None else subtomogram
    return subtomogram * particle


def subtomogram_shift(table: pd.DataFrame, path: Path) -> np.ndarray:
    """Å to subtract from each coordinate, shape (n, 3): `rlnOriginX/Y/ZAngst` turned by the subtomogram alone."""
    origin = np.stack([number_column(table, c, "STAR", path, missing=0.0) for c in ORIGINS], axis=1)
    subtomogram = _zyz(table, SUBTOMOGRAM_ANGLES, path) if len(table) else None
    return origin if subtomogram is None else subtomogram.apply(origin)


def optics_column(table: pd.DataFrame, optics: pd.DataFrame, column: str, path: Path) -> np.ndarray | None:
    """A number per particle from its own row or its optics group, shape (n,); None if neither has it."""
    if column in table.columns:
        return number_column(table, column, "STAR", path)
    if column not in optics.columns or len(optics) == 0:
        return None
    values = number_column(optics, column, "STAR optics", path)
    if len(optics) == 1 or "rlnOpticsGroup" not in table.columns:
        return np.full(len(table), values[0])
    by_group = dict(zip(optics["rlnOpticsGroup"].astype(int), values, strict=True))
    groups = table["rlnOpticsGroup"].astype(int)
    unknown = sorted(set(groups) - set(by_group))
    if unknown:
        raise ValueError(f"{path}: optics group {unknown[0]} of the particles is not in the optics table.")
    return groups.map(by_group).to_numpy(dtype=float)


def tomogram_names(particles: ParticleList, context: TomogramContext, format_name: str) -> list[str]:
    """A name for every particle: its own, else the context's; an error if neither exists."""
    names = [str(name) for name in particles.tomogram]
    if not all(names):
        default = str(context.require("name", format_name))
        names = [name or default for name in names]
    return names


def pixel_size_in_file(
    table: pd.DataFrame, optics: pd.DataFrame, context: TomogramContext, format_name: str, path: Path
) -> np.ndarray:
    """Å per unbinned pixel, shape (n, 1) from the file (`rlnTomoTiltSeriesPixelSize`), else (3,) from the context.

    Raises
    ------
    ValueError
        If the two are apart: the binning would be wrong, and every position with it.
    """
    expected = unbinned_pixel_xyz(context, format_name)
    pixel = optics_column(table, optics, PIXEL_SIZE, path)
    if pixel is None:
        return expected
    if len(pixel) and np.abs(pixel[:, None] / expected - 1).max() > 0.02:
        raise ValueError(
            f"{path}: {format_name} has {PIXEL_SIZE} {pixel[0]:g} Å, but voxel size / binning is {expected[0]:g} Å. "
            f"Give --binning {expected[0] * context.binning / pixel[0]:.4g}, or another --voxel_size."
        )
    return pixel[:, None]


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
    with atomic_path(path) as temporary:
        if len(next(iter(columns.values()), ())) == 0:  # type: ignore[arg-type]
            header = "".join(f"_{name} #{number}\n" for number, name in enumerate(columns, start=1))
            temporary.write_text(f"\ndata_{block}\n\nloop_\n{header}\n\n", encoding="utf-8")
        else:
            text = starfile.to_string({block: pd.DataFrame(columns)}, float_format="%.6f")
            # starfile's first line holds the time: without it the same particles give the same bytes
            temporary.write_text(text.partition("\n")[2], encoding="utf-8")


def sniff_star(head: bytes, column: str) -> bool:
    """Whether a file begins like STAR and names a column."""
    text = head.decode("utf-8", "replace")
    return "data_" in text and f"_{column}" in text


def _class_names(table: pd.DataFrame) -> list[str]:
    for column in (PARTICLE_CLASS, CLASS_NUMBER):
        if column in table.columns:
            return [str(name) for name in table[column]]
    return [""] * len(table)


def _zyz(table: pd.DataFrame, columns: tuple[str, ...], path: Path) -> Rotation | None:
    if not set(columns) <= set(table.columns):
        return None
    return rotation_from_relion(np.stack([number_column(table, c, "STAR", path) for c in columns], axis=1))
