"""The record that a detection leaves, ``<tomogram>.json``: read again, compared with what is asked for now."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from custom_transforms.files.json_object import read_object
from scripts.records.weights import file_digest

if TYPE_CHECKING:
    from scripts.outputs import SaveDetectiond

__all__ = [
    "detections_in",
    "file_sha256",
    "file_state",
    "finished_record",
    "read_detection",
    "recorded",
    "records_in",
    "remove_detection",
]

LATER = {"fill_nonfinite": False}  # settings that the first records did not name, as they were


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


def recorded(save: SaveDetectiond, tomogram: str | Path) -> dict[str, Any]:
    """What the record of a finished detection says in numbers: particles kept and dropped, and the files written."""
    path = save.record(tomogram)
    made = read_detection(path)
    return {
        "tomogram": str(tomogram),
        "particles": made["particles"].get("kept"),
        "dropped": made["particles"].get("dropped"),
        "written": [*(path.parent / name for name in made["files"].values()), path],
    }


def finished_record(save: SaveDetectiond, item: Mapping[str, Any]) -> bool:
    """Tell whether a tomogram, an item of a datalist, was already detected with the same inputs.

    Raises
    ------
    FileExistsError
        If it was detected with other settings or weights, or not written into the copick project, or a file that is
        wanted now is not among its files, or gone since; names what differs.
    ValueError
        If its record is damaged.
    """
    record = save.record(item["image"])
    if save.overwrite or not record.is_file():
        return False
    made = read_detection(record)
    changed = _changed(made["inputs"], save.inputs(item))
    changed += [] if save.copick in (None, made.get("copick")) else ["copick"]
    advice = "Choose another --output_dir, or --overwrite to replace it."
    if changed:
        raise FileExistsError(f"{record}: detected before with other {', '.join(changed)}. {advice}")
    files = _files(record, made)
    lacking = [one for one in save.written if one not in files or not (record.parent / files[one]).is_file()]
    if lacking:  # never repeated unasked: hours, and perhaps lists corrected by hand
        raise FileExistsError(
            f"{record}: detected before, but its files lack {', '.join(lacking)} (not asked for then, or gone since). "
            "`python -m scripts export` makes lists of the .csv and `python -m scripts report` the page; leave "
            "--formats and --report as they were, or --overwrite to detect again."
        )
    return True


def _changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the settings and files that differ, also of those that one of both lacks."""
    old, new = {**LATER, **(then.get("settings") or {})}, now["settings"]
    changed = [key for key in {**new, **old} if old.get(key) != new.get(key)]
    changed += [key for key in {**now, **then} if key != "settings" and then.get(key) != now.get(key)]
    return list(dict.fromkeys(changed))


def file_state(path: str | Path) -> dict[str, Any]:
    """Path, bytes and time of a file, by which a later run sees whether it is still the same."""
    status = Path(path).stat()
    return {"path": str(path), "bytes": status.st_size, "modified": status.st_mtime}


def _files(record: Path, made: Mapping[str, Any]) -> dict[str, str]:
    """The files of a detection by what they are, also the page that ``report`` made later."""
    return {"report": f"{record.stem}_report.html", **made["files"]}


def remove_detection(record: Path) -> None:
    """Remove a record, then the files it lists in its own folder: a new detection may not write all of them."""
    try:
        files = tuple(_files(record, read_detection(record)).values())
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
