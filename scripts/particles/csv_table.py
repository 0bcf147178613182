"""CSV: our particle table, and any table with x, y, z columns."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd

from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.context import TomogramContext
from scripts.particles.shared.format import Format, number_column, read_text, require_columns, to_numbers, write_text
from scripts.particles.shared.orientations import relion_angles, rotation_from_relion

__all__ = ["CSV", "TABLE_COLUMNS", "particles_from_table", "position_unit", "read", "table_from_particles", "write"]

TABLE_COLUMNS = (
    "particle_id", "label", "class", "x_vox", "y_vox", "z_vox", "x_angstrom", "y_angstrom", "z_angstrom", "score",
    "volume_vox", "volume_angstrom3", "touches_border", "neighbors", "dropped_by",
)  # fmt: skip
_ANGSTROM = ("x_angstrom", "y_angstrom", "z_angstrom")
_VOXEL = ("x_vox", "y_vox", "z_vox")
_PLAIN = ("x", "y", "z")
_ANGLES = ("angle_rot", "angle_tilt", "angle_psi")  # as rlnAngleRot/Tilt/Psi
_UNITS = ((_ANGSTROM, "Å"), (_VOXEL, "voxels"), (_PLAIN, "voxels"))  # the first that is there counts
_CLASS = ("class", "class_name", "class_label")
_TOMOGRAM = ("tomogram", "tomo_name", "tomo_idx")
_DECIMALS = 6


def particles_from_table(
    table: pd.DataFrame, context: TomogramContext | None = None, path: Path | str = "table"
) -> ParticleList:
    """Turn a particle table into a list; rows with a reason in ``dropped_by`` are left out.

    Positions come from ``x_angstrom``..., else ``x_vox``..., else ``x``, ``y``, ``z`` (voxels); voxels need
    ``context.voxel_size_zyx``. Class, tomogram, score, ``radius_angstrom`` and angles are taken where they exist.

    Parameters
    ----------
    table : DataFrame
        One row per particle; column names in any case.
    context : TomogramContext, optional
    path : path or str
        Named in errors.

    Raises
    ------
    ValueError
        If position columns are missing or hold anything but numbers; names column and row.
    """
    context = context or TomogramContext()
    path = Path(path)
    table = table.rename(columns=lambda name: str(name).strip().lower())
    if "dropped_by" in table.columns:
        reason = table["dropped_by"].fillna("").astype(str).str.strip()
        table = table[reason == ""].reset_index(drop=True)
    used = [c for c in (*_CLASS, *_TOMOGRAM) if c in table.columns]
    return ParticleList(
        _centers(table, context, path),
        tomogram=_names(table, _TOMOGRAM, context.name),
        class_name=[context.class_names.get(name, name) for name in _names(table, _CLASS, "")],
        score=number_column(table, "score", "csv", path, missing=np.nan),
        rotation=_rotation(table, path),
        radius_angstrom=number_column(table, "radius_angstrom", "csv", path, missing=np.nan),
        extra=table.drop(
            columns=[
                c
                for c in (*_ANGSTROM, *_VOXEL, *_PLAIN, *_ANGLES, *used, "score", "radius_angstrom", "dropped_by")
                if c in table.columns
            ]
        ),
    )


def table_from_particles(particles: ParticleList, context: TomogramContext | None = None) -> pd.DataFrame:
    """The particle table of a list: `TABLE_COLUMNS`, then tomogram, radius and angles where known, then the rest.

    Voxel columns are empty if the voxel size is unknown; what the list does not hold stays empty.
    """
    context = context or TomogramContext()
    count = len(particles)
    table = pd.DataFrame(index=range(count))
    extra = particles.extra
    for column in TABLE_COLUMNS:
        table[column] = extra[column].to_numpy() if column in extra.columns else ""
    for column in ("particle_id", "label"):
        if column not in extra.columns:
            table[column] = np.arange(1, count + 1)
    table["class"] = particles.class_name
    table["score"] = particles.score
    for axis, column in enumerate(_ANGSTROM):
        table[column] = particles.centers_xyz_angstrom[:, axis].round(_DECIMALS)
    if context.voxel_size_zyx is not None:
        voxels = particles.centers_xyz_angstrom / context.voxel_size_zyx[::-1]
        for axis, column in enumerate(_VOXEL):
            table[column] = voxels[:, axis].round(_DECIMALS)
    if any(particles.tomogram):
        table["tomogram"] = particles.tomogram
    if np.isfinite(particles.radius_angstrom).any():
        table["radius_angstrom"] = particles.radius_angstrom
    if particles.rotation is not None:
        table[list(_ANGLES)] = relion_angles(particles.rotation).round(_DECIMALS)
    for column in extra.columns:
        if column not in table.columns:
            table[column] = extra[column].to_numpy()
    return table


def read(path: Path, context: TomogramContext) -> ParticleList:
    """Read a comma-, semicolon- or tab-separated table with a header line."""
    return particles_from_table(_read_table(path), context, path)


def position_unit(path: Path) -> str:
    """Say which columns of a table give the positions, and their unit: ``x, y, z in voxels``; "" if there are none."""
    names = [str(name).strip().lower() for name in _read_table(path, rows=0).columns]
    return next((f"{', '.join(columns)} in {unit}" for columns, unit in _UNITS if columns[0] in names), "")


def _read_table(path: Path, rows: int | None = None) -> pd.DataFrame:
    text = read_text(path, "csv")
    if not text.strip():
        raise ValueError(f"{path}: csv needs a header line with x_angstrom,y_angstrom,z_angstrom; the file is empty.")
    header = text.lstrip().split("\n", 1)[0]
    separator = max(",;\t", key=header.count)
    try:
        return pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, comment="#", nrows=rows)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{path}: csv rows do not match the header ({error}).") from error


def write(particles: ParticleList, path: Path, context: TomogramContext) -> None:
    """Write the particle table as CSV."""
    write_text(path, table_from_particles(particles, context).to_csv(index=False, lineterminator="\n"))


def _centers(table: pd.DataFrame, context: TomogramContext, path: Path) -> np.ndarray:
    for columns, unit in _UNITS:
        if columns[0] not in table.columns:
            continue
        require_columns(table, columns, "csv", path)
        centers = np.stack([to_numbers(table[c], c, "csv", path) for c in columns], axis=1)
        return centers * context.voxel_size_xyz(f"{path}: csv in voxels") if unit == "voxels" else centers
    require_columns(table, _ANGSTROM, "csv", path)
    raise AssertionError("unreachable: require_columns raises")


def _names(table: pd.DataFrame, columns: tuple[str, ...], default: str) -> list[str]:
    for column in columns:
        if column in table.columns:
            names = table[column].fillna("").astype(str).str.strip()
            return names.where(names != "", default).tolist()
    return [default] * len(table)


def _rotation(table: pd.DataFrame, path: Path):
    if _ANGLES[0] not in table.columns or len(table) == 0:
        return None
    require_columns(table, _ANGLES, "csv", path)
    return rotation_from_relion(np.stack([to_numbers(table[c], c, "csv", path) for c in _ANGLES], axis=1))


def _sniff(head: bytes) -> bool:
    words = head.decode("utf-8", "replace").lstrip("\ufeff").split("\n", 1)[0].lower()
    columns = {word.strip() for word in words.replace(";", ",").replace("\t", ",").split(",")}
    return any(set(names) <= columns for names in (_ANGSTROM, _VOXEL, _PLAIN))


CSV = Format(
    name="csv",
    description="our particle table; also any table with a header and x, y, z (Å or voxels, from the corner)",
    suffixes=(".csv", ".tsv"),
    keeps=frozenset({"score", "class", "orientation", "subvoxel", "radius", "tomogram"}),
    read=read,
    write=write,
    sniff=_sniff,
)
