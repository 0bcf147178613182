"""The protocol of particle-list formats, and what their readers and writers share."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from custom_transforms.files.whole_files import atomic_path
from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.context import ParticleListWarning, TomogramContext
from scripts.particles.shared.declared import Says

__all__ = [
    "Format",
    "atomic_path",
    "class_numbers",
    "known_text",
    "number_column",
    "number_names",
    "optional_angles",
    "optional_column",
    "optional_numbers",
    "require_columns",
    "to_numbers",
    "whole_number_text",
    "write_text",
]

Reader = Callable[[Path, TomogramContext], ParticleList]
Writer = Callable[[ParticleList, Path, TomogramContext], None]
Sniffer = Callable[[bytes], bool]
Teller = Callable[[Path, TomogramContext], Says]

MISSING = ("", "nan", "none", "<na>", "null")  # words for a value that is not there


@dataclass(frozen=True)
class Format:
    """One file format of particle lists.

    Parameters
    ----------
    name : str
        What a user types after ``--from_format`` or ``--to_format``.
    description : str
        One line: program, unit, where it counts from.
    suffixes : tuple of str
        Endings, lower case, with the dot; a writer is guessed from them.
    keeps : frozenset of str
        Of "score", "class", "orientation", "subvoxel", "radius", "tomogram": what a file of this format holds.
    read, write : callable or None
        ``read(path, context)`` and ``write(particles, path, context)``; None where there is none.
    sniff : callable
        Whether the first 8 KiB of a file are this format.
    counts : {"unbinned", "voxels", "angstrom"}
        What it counts in: pixels of the unbinned tilt series, so that positions depend on ``TomogramContext.binning``;
        voxels of the tomogram; Å.
    says : callable or None
        ``says(path, context)``: what a file says of its tomogram; None if the format has no place for it.
    beside : tuple of str
        Endings of further files that the writer makes beside its own.
    centered : bool
        Whether it counts from the middle of the tomogram.
    """

    name: str
    description: str
    suffixes: tuple[str, ...]
    keeps: frozenset[str]
    read: Reader | None
    write: Writer | None
    sniff: Sniffer
    counts: str = "voxels"
    says: Teller | None = None
    beside: tuple[str, ...] = ()
    centered: bool = False


def require_columns(table: pd.DataFrame, columns: tuple[str, ...], format_name: str, path: Path) -> None:
    """Raise ValueError if a column is missing; names it, the file and what is there."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        found = ", ".join(map(str, list(table.columns)[:30])) or "none"
        raise ValueError(
            f"{path}: {format_name} needs the column {', '.join(missing)}; found {found}. "
            "Add the column, or name the right format with --from_format."
        )


def to_numbers(values: object, column: str, format_name: str, path: Path, empty_is_nan: bool = False) -> np.ndarray:
    """Turn a column of text or numbers into float64, shape (n,); an error names the first bad row (from 1)."""
    series = pd.Series(values).reset_index(drop=True)
    numbers = pd.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64)
    bad = ~np.isfinite(numbers)
    if empty_is_nan:
        texts = series[bad].map(lambda value: str(value).strip().lower())
        bad[np.flatnonzero(bad)[texts.isin(MISSING).to_numpy()]] = False
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"{path}: {format_name} column {column}, row {row + 1}: expected a number, got "
            f"{str(series.iloc[row])[:60]!r} ({int(bad.sum())} such rows). Correct or remove the row."
        )
    return numbers


def number_column(table: pd.DataFrame, column: str, format_name: str, path: Path, missing: float | None = None):
    """A column as float64, shape (n,); where the column does not exist, ``missing`` for every row (if given)."""
    if column not in table.columns and missing is not None:
        return np.full(len(table), missing)
    require_columns(table, (column,), format_name, path)
    return to_numbers(table[column], column, format_name, path, empty_is_nan=missing is not None and np.isnan(missing))


def optional_numbers(values: Iterable, column: str, format_name: str, path: Path) -> np.ndarray:
    """Numbers that a list can do without, shape (n,): nan, with a warning, where one is missing or not finite."""
    series = pd.Series(list(values), dtype=object).map(lambda value: str(value).strip())
    infinite = series.str.lower().str.fullmatch(r"[+-]?inf(inity)?")
    numbers = to_numbers(series.where(~infinite, "nan"), column, format_name, path, empty_is_nan=True)
    strange = int((~np.isfinite(numbers) & (series != "").to_numpy()).sum())
    if strange:
        _warn(
            f"{path}: {format_name} column {column}: {strange} of {len(series)} values are missing; taken as unknown."
        )
    return numbers


def optional_column(table: pd.DataFrame, column: str, format_name: str, path: Path) -> np.ndarray:
    """`optional_numbers` of a column; nan for every row where the column does not exist."""
    if column not in table.columns:
        return np.full(len(table), np.nan)
    return optional_numbers(table[column], column, format_name, path)


def optional_angles(table: pd.DataFrame, columns: tuple[str, ...], format_name: str, path: Path) -> np.ndarray | None:
    """Angles, shape (n, 3); None, with a warning, if one is missing: orientations are known for all or for none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ParticleListWarning)
        angles = np.stack([optional_column(table, column, format_name, path) for column in columns], axis=1)
    missing = int((~np.isfinite(angles)).any(axis=1).sum())
    if missing:
        _warn(
            f"{path}: {format_name}: {missing} of {len(table)} particles have no {', '.join(columns)}; the list "
            "is read without orientations."
        )
        return None
    return angles


def known_text(value: object) -> str:
    """A text without blanks around it; "" for the words that stand for a missing one."""
    text = str(value).strip()
    return "" if text.lower() in MISSING else text


def whole_number_text(text: str) -> str:
    """The number of a class as other programs write it, in one form.

    Examples
    --------
    >>> [whole_number_text(text) for text in ("2.0", "2.000000", "2", "80S", "1.5")]
    ['2', '2', '2', '80S', '1.5']
    """
    return text.split(".")[0] if re.fullmatch(r"\d+\.0*", text) else text


def _warn(text: str) -> None:
    warnings.warn(text, ParticleListWarning, stacklevel=3)


def class_numbers(particles: ParticleList, context: TomogramContext) -> list[int]:
    """A number for every particle's class; 0 for "".

    Names that are numbers keep them; others follow ``context.class_names``, then come in alphabetical order.
    """
    known = {name: int(number) for number, name in context.class_names.items()}
    names = [str(name) for name in particles.class_name]
    new = sorted({name for name in names if name and name not in known and not name.isdecimal()})
    taken = set(known.values()) | {int(name) for name in names if name.isdecimal()}
    free = (number for number in range(1, len(new) + len(taken) + 1) if number not in taken)
    known.update(zip(new, free, strict=False))
    return [known[name] if name in known else int(name or 0) for name in names]


def number_names(names: list[str]) -> list[int]:
    """A number for every tomogram: its own if all names are numbers, else 1, 2, ... in alphabetical order."""
    if all(name.isdecimal() for name in names):
        return [int(name) for name in names]
    number = {name: index for index, name in enumerate(sorted(set(names)), start=1)}
    return [number[name] for name in names]


def write_text(path: Path | str, text: str) -> None:
    """Write text, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
