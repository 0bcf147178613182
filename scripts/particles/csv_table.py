"""CSV: our particle table, and any table with x, y, z columns."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from custom_transforms.files.text import read_text
from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.context import TomogramContext, tomogram_base_name
from scripts.particles.shared.declared import Says, voxel_size_in
from scripts.particles.shared.format import (
    Format,
    optional_angles,
    optional_column,
    require_columns,
    to_numbers,
    whole_number_text,
    write_text,
)
from scripts.particles.shared.orientations import relion_angles, rotation_from_relion
from scripts.particles.shared.star_text import MOST_COLUMNS

__all__ = [
    "CSV",
    "TABLE_COLUMNS",
    "particles_from_table",
    "plain_text",
    "position_unit",
    "read",
    "says",
    "table_from_particles",
    "table_text",
    "write",
]

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
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


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
    table = table.map(plain_text)
    used = [c for c in (*_CLASS, *_TOMOGRAM) if c in table.columns]
    return ParticleList(
        _centers(table, context, path),
        tomogram=_names(table, _TOMOGRAM, context.name),
        class_name=[context.class_names.get(name, name) for name in map(whole_number_text, _names(table, _CLASS, ""))],
        score=optional_column(table, "score", "csv", path),
        rotation=_rotation(table, path),
        radius_angstrom=optional_column(table, "radius_angstrom", "csv", path),
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
    names = [name.strip().lower() for name in _read_table(path).columns]
    return next((f"{', '.join(columns)} in {unit}" for columns, unit in _UNITS if columns[0] in names), "")


def says(path: Path, context: TomogramContext) -> Says:
    """The voxel size of the tomogram that a table with voxels and Å was made on, and its tomograms."""
    table = _read_table(path).rename(columns=lambda name: str(name).strip().lower())
    names = tuple(sorted({tomogram_base_name(name) for name in _names(table, _TOMOGRAM, "") if name}))
    if not {*_ANGSTROM, *_VOXEL} <= set(table.columns):
        return Says(tomograms=names)
    # its positions are the Å: only a tomogram whose voxel size is not known takes it from here
    known = context.voxel_size_zyx is not None
    return Says(None if known else voxel_size_in(table, _ANGSTROM, _VOXEL), "x_angstrom / x_vox", tomograms=names)


def _read_table(path: Path) -> pd.DataFrame:
    """All cells as text. Lines that begin with # are comments before the header, and after it if they are no row."""
    text = read_text(path, "a csv list")
    head = re.match(r"(?:[^\S\n]*(?:#[^\n]*)?\n)*", text)
    text = text[head.end() :] if head else text
    if not text.strip() or text.lstrip().startswith("#"):
        raise ValueError(f"{path}: csv needs a header line with x_angstrom,y_angstrom,z_angstrom; the file is empty.")
    header = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=header.count), strict=True)
    try:
        columns = next(reader)
        rows = [row for row in reader if row and (len(row) == len(columns) or not row[0].startswith("#"))]
    except csv.Error as error:
        raise ValueError(f"{path}: not readable as csv, row {reader.line_num} ({error}).") from error
    if len(columns) > MOST_COLUMNS:
        raise ValueError(f"{path}: csv: expected at most {MOST_COLUMNS:,} columns, got {len(columns):,}. Is it a list?")
    doubled = sorted({name for name in columns if name and columns.count(name) > 1})
    if doubled:
        raise ValueError(f"{path}: csv has the column {doubled[0]} twice. Rename or remove one.")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(columns):
            surplus = row[len(columns) :]
            if len(row) > len(columns) and not any(cell.strip() for cell in surplus):
                del row[len(columns) :]
                continue
            raise ValueError(
                f"{path}: csv rows do not match the header: row {number} has {len(row)} values, the header "
                f"{len(columns)}. Is the file complete?"
            )
    return pd.DataFrame(rows, columns=columns, dtype=object)


def table_text(table: pd.DataFrame, **options: Any) -> str:
    """A table as CSV that a spreadsheet does not calculate with, and that is read back as it was.

    A text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return, and is no number, gets a ``'`` in
    front; so does one that has it already. ``options`` are those of `DataFrame.to_csv`.
    """
    texts = [name for name, column in table.items() if column.dtype.kind not in "iufb"]
    safe = table.assign(**{str(name): [_quoted(value) for value in table[name]] for name in texts})
    return safe.to_csv(index=False, lineterminator="\n", **options)


def write(particles: ParticleList, path: Path, context: TomogramContext) -> None:
    """Write the particle table as CSV."""
    write_text(path, table_text(table_from_particles(particles, context)))


def _quoted(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) and not _is_number(value) else value


def plain_text(value: Any) -> Any:
    """The text of a cell as it was before `table_text` made it safe; anything else as it is."""
    return value[1:] if isinstance(value, str) and value.startswith("'") and _FORMULA.match(value) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


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
    angles = optional_angles(table, _ANGLES, "csv", path)
    return None if angles is None else rotation_from_relion(angles)


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
    counts="angstrom",
    says=says,
)
