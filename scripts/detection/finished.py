"""Whether a tomogram was detected before with what is asked for now, and what its record says in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.outputs import SaveDetectiond
from scripts.records.detection import Inputs, files_of, read_detection

__all__ = ["finished_record", "recorded"]

LATER = {"fill_nonfinite": False, "largest_tile_side": 96}  # settings that the first records did not name, as they were


def recorded(save: SaveDetectiond, tomogram: str | Path) -> dict[str, Any]:
    """What the record of a finished detection says in numbers: particles kept and dropped, and the files written."""
    path = save.record(tomogram)
    made = read_detection(path)
    return {
        "tomogram": str(tomogram),
        "particles": made.particles.kept,
        "dropped": made.particles.dropped,
        "written": [*(path.parent / name for name in made.files.values()), path],
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
    changed = _changed(made.inputs, save.inputs(item))
    changed += [] if save.copick in (None, made.copick) else ["copick"]
    advice = "Choose another --output_dir, or --overwrite to replace it."
    if changed:
        raise FileExistsError(f"{record}: detected before with other {', '.join(changed)}. {advice}")
    files = files_of(record, made)
    wanted = [key for key in save.names if key != "center_map"]  # earlier versions kept none
    lacking = [key for key in wanted if key not in files or not (record.parent / files[key]).is_file()]
    if lacking:  # never repeated unasked: hours, and perhaps lists corrected by hand
        raise FileExistsError(
            f"{record}: detected before, but its files lack {', '.join(lacking)} (not asked for then, or gone since). "
            "`python -m scripts export` makes lists of the .csv and `python -m scripts report` the page; leave "
            "--formats and --report as they were, or --overwrite to detect again."
        )
    return True


def _changed(then: Inputs, now: Inputs) -> list[str]:
    """Names of the settings and files that differ, also of those that either lacks."""
    old, new = {**LATER, **then.settings}, now.settings
    changed = [key for key in {**new, **old} if old.get(key) != new.get(key)]
    if then.edits is not None and now.edits is not None:
        changed += [key for key in {**now.edits, **then.edits} if then.edits.get(key) != now.edits.get(key)]
    before, after = then.content(), now.content()
    rest = [key for key in {**after, **before} if key not in ("settings", "edits")]
    changed += [key for key in rest if before.get(key) != after.get(key)]
    return list(dict.fromkeys(changed))
