"""The detections that a user names: the folder of one tomogram, of all, a pattern of these, or a file in one."""

from __future__ import annotations

from pathlib import Path

from scripts.records.detection import detections_in
from scripts.sources.named import each_once, named_paths

__all__ = ["find_detections", "is_detection", "one_detection"]

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
        If there is none, or a folder holds several tables none of which has its name.
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
        names = ", ".join(str(one.parent) for one in found[:5])
        raise ValueError(
            f"{named}: expected the folder of one detection, got those of {len(found)}: {names}"
            f"{', ...' if len(found) > 5 else ''}. Give one of them."
        )
    return found[0]


def _prefixes(path: Path) -> list[Path]:
    if path.is_file():
        owners = [one for one in _prefixes(path.parent) if path.name.startswith(one.name)]
        if owners:
            return [max(owners, key=lambda one: len(one.name))]
        raise ValueError(f"{path}: expected {WHAT}, got a file that is not of a detection.")
    names = sorted(one.name.removesuffix(TABLE) for one in path.glob(f"*{TABLE}"))
    own = path.resolve().name
    if own in names or len(names) == 1:
        return [path / (own if own in names else names[0])]
    if names:
        raise ValueError(
            f"{path}: expected one detection in a folder, found {len(names)}: {', '.join(names[:5])}. Give one of "
            f"them, for example {path / names[0]}{TABLE}."
        )
    below = detections_in(path)
    if not below:
        raise ValueError(f"{path}: expected {WHAT}, no detection is in it. Run `python -m scripts detect` first.")
    return [one / one.name for one in below]
