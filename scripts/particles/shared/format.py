"""The protocol of particle-list formats, and what their readers and writers share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from custom_transforms.files.whole_files import atomic_path
from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.context import TomogramContext

__all__ = [
    "Format",
    "atomic_path",
    "class_numbers",
    "number_column",
    "number_names",
    "read_text",
    "require_columns",
    "to_numbers",
    "write_text",
]

Reader = Callable[[Path, TomogramContext], ParticleList]
Writer = Callable[[ParticleList, Path, TomogramContext], None]
Sniffer = Callable[[bytes], bool]


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
    unbinned : bool
        Whether it counts pixels of the unbinned tilt series, so that positions depend on ``TomogramContext.binning``.
    """

    name: str
    description: str
    suffixes: tuple[str, ...]
    keeps: frozenset[str]
    read: Reader | None
    write: Writer | None
    sniff: Sniffer
    unbinned: bool = False


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
        texts = series[bad].astype(str).str.strip().str.lower()
        bad[np.flatnonzero(bad)[texts.isin(["", "nan", "none", "<na>"]).to_numpy()]] = False
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"{path}: {format_name} column {column}, row {row + 1}: expected a number, got {str(series.iloc[row])!r} "
            f"({int(bad.sum())} such rows). Correct or remove the row."
        )
    return numbers


def number_column(table: pd.DataFrame, column: str, format_name: str, path: Path, missing: float | None = None):
    """A column as float64, shape (n,); where the column does not exist, ``missing`` for every row (if given)."""
    if column not in table.columns and missing is not None:
        return np.full(len(table), missing)
    require_columns(table, (column,), format_name, path)
    return to_numbers(table[column], column, format_name, path, empty_is_nan=missing is not None and np.isnan(missing))


def read_text(path: Path, format_name: str) -> str:
    """The text of a file; an error if it is missing or is not text."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such particle list. Check the path.") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: {format_name} is a text format, but this file is not text ({error.reason})."
        ) from None


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
