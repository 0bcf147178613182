"""The record that a detection leaves, ``<tomogram>.json``: read again, compared with what is asked for now."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.json_file import read_object

if TYPE_CHECKING:
    from scripts.outputs import SaveDetectiond

__all__ = ["file_sha256", "finished_record", "read_detection", "recorded"]


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
    wanted = ("inputs", "particles", "files")
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
        If it was detected with other settings or weights, or not written into the copick project; names what differs.
    ValueError
        If its record is damaged.
    """
    record = save.record(item["image"])
    if save.overwrite or not record.is_file():
        return False
    made = read_detection(record)
    then, now = made["inputs"], save.inputs(item)
    written = save.copick in (None, made.get("copick"))
    if then == now and written:
        return True
    changed = [key for key in now["settings"] if then.get("settings", {}).get(key) != now["settings"][key]]
    changed += [key for key in ("tomogram", "weights_sha256") if then.get(key) != now[key]]
    changed += [] if written else ["copick"]
    raise FileExistsError(
        f"{record}: detected before with other {', '.join(changed) or 'settings'}. "
        "Choose another --output_dir, or --overwrite to replace it."
    )


@lru_cache(maxsize=8)
def file_sha256(path: Path, modified: float) -> str:
    """Hash a file; ``modified`` only renews the cache."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
