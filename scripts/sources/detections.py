"""The detections that a user names: the folder of one tomogram, of all, a pattern of these, or a file in one."""

from __future__ import annotations

from pathlib import Path

from scripts.records.detection import detections_in
from scripts.sources.named import each_once, listed, named_paths

__all__ = ["detections_below", "find_detections", "is_detection", "one_detection"]

TABLE = "_particles.csv"
WHAT = "a folder that detect wrote (<output_dir> or <output_dir>/<tomogram>)"


def is_detection(folder: Path) -> bool:
    """Tell whether a folder is that of one tomogram that `detect` wrote, finished or not."""
    return any((folder / f"{folder.name}{end}").is_file() for end in (TABLE, "_instances.mrc"))


def find_detections(named: str | Path) -> list[Path]:
    """List the detections that a user names.

    Parameters
    ----------
    named : path
        The folder of one tomogram that `detect` wrote (also renamed), its output folder, a pattern of folders, or a
        file of a detection.

    Returns
    -------
    list of Path
        ``<folder>/<tomogram>``, what the names of a detection's files begin with; at least one, each once.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is none.
    """
    found = [one for path in named_paths(named, WHAT) for one in _prefixes(path)]
    return list(each_once(found, str, str, "detections").values())


def one_detection(named: str | Path) -> Path:
    """`find_detections` of a name that stands for exactly one.

    Raises
    ------
    FileNotFoundError, ValueError
        Also if there are several; names them.
    """
    found = find_detections(named)
    if len(found) > 1:
        raise ValueError(
            f"{named}: expected one detection, got {len(found)}: {listed(map(str, found), most=5)}. Give one of them."
        )
    return found[0]


def detections_below(folder: Path) -> list[Path]:
    """`find_detections` of a folder; possibly none."""
    names = sorted(one.name.removesuffix(TABLE) for one in folder.glob(f"*{TABLE}"))
    own = folder.resolve().name
    if own in names:
        return [folder / own]
    return [folder / name for name in names] or [one / one.name for one in detections_in(folder)]


def _prefixes(path: Path) -> list[Path]:
    if path.is_file():
        owners = [one for one in detections_below(path.parent) if path.name.startswith(one.name)]
        if not owners:
            raise ValueError(f"{path}: expected {WHAT}, got a file that is not of a detection.")
        return [max(owners, key=lambda one: len(one.name))]
    found = detections_below(path)
    if not found:
        raise ValueError(f"{path}: expected {WHAT}, no detection is in it. Run `python -m scripts detect` first.")
    return found
