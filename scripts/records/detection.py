"""The record that a detection leaves, ``<tomogram>.json``: read again, compared with what is asked for now."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from custom_transforms.files.json_object import read_object
from scripts.records.weights import file_digest

__all__ = [
    "detections_in",
    "file_sha256",
    "file_state",
    "files_of",
    "read_detection",
    "records_in",
    "remove_detection",
]


def detections_in(folder: Path) -> list[Path]:
    """The folders ``<tomogram>`` that `detect` wrote into its output folder, by name."""
    tables = folder.glob("*/*_particles.csv")
    return sorted(one.parent for one in tables if one.name == f"{one.parent.name}_particles.csv")


def records_in(folder: Path) -> list[Path]:
    """The records of the finished among the `detections_in` a folder; each is in the folder of its tomogram."""
    records = [run / f"{run.name}.json" for run in detections_in(folder)]
    return [one for one in records if one.is_file()]


def read_detection(record: Path) -> dict[str, Any]:
    """Read the record of an earlier detection.

    Raises
    ------
    ValueError
        If it is damaged, or not what `SaveDetectiond` writes.
    """
    advice = "Remove it or --overwrite to detect again."
    try:
        made = read_object(record, "the record of a detection")
    except ValueError as error:
        raise ValueError(f"{error} {advice}") from error
    wanted = ("inputs", "tomogram", "particles", "files")
    lacking = [key for key in wanted if not isinstance(made.get(key), dict)]
    if lacking:
        raise ValueError(
            f"{record}: expected the record of a detection with {', '.join(wanted)}, but it lacks "
            f"{', '.join(lacking)}. {advice}"
        )
    return made


def file_state(path: str | Path) -> dict[str, Any]:
    """Path, bytes and time of a file, by which a later run sees whether it is still the same."""
    status = Path(path).stat()
    return {"path": str(path), "bytes": status.st_size, "modified": status.st_mtime}


def files_of(record: Path, made: Mapping[str, Any]) -> dict[str, str]:
    """The files of a detection by what they are, also the page that ``report`` made later."""
    return {"report": f"{record.stem}_report.html", **made["files"]}


def remove_detection(record: Path) -> None:
    """Remove a record, then the files it lists in its own folder: a new detection may not write all of them."""
    try:
        files = tuple(files_of(record, read_detection(record)).values())
    except (FileNotFoundError, ValueError):  # nobody knows what a damaged record has listed
        files = ()
    record.unlink(missing_ok=True)
    for name in files:
        if isinstance(name, str) and name == Path(name).name:
            (record.parent / name).unlink(missing_ok=True)


@lru_cache(maxsize=8)
def file_sha256(path: Path, modified: float) -> str:
    """Hash a file; ``modified`` only renews the cache."""
    return file_digest(path)
