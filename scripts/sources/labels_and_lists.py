"""Which files of two folders (or files) belong together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from custom_transforms.files.json_object import read_object
from custom_transforms.volumes.read import VOLUME_SUFFIXES
from custom_transforms.volumes.zarr_read import is_zarr
from scripts.particles.registry import FORMATS, listed_tomograms
from scripts.particles.shared.context import PLAIN_NAMES, tomogram_base_name, tomogram_stem
from scripts.sources.copick_labels import is_segmentation_uri, segmentations
from scripts.sources.copick_project import is_copick, runs_with_picks
from scripts.sources.particle_lists import read_particles

__all__ = ["SideFiles", "find_sides", "pair_sides"]

VOLUME_WORDS = ("instances", "labels", "label", "truth", "gt")
LIST_WORDS = ("particles", "centers", "points", "coordinates")


@dataclass(frozen=True)
class SideFiles:
    """The files of one tomogram on one side; at least one of the two is given.

    ``member`` names the tomogram inside a list that holds several.
    """

    name: str
    volume: Path | None = None
    particles: Path | None = None
    member: str | None = None


def find_sides(path: str | Path, what: str) -> dict[str, SideFiles]:
    """Find the label volumes and particle lists below a path, by tomogram.

    Parameters
    ----------
    path : path
        A label volume, a particle list, a folder of them (searched through), a ``dataset.json``, or of a copick project
        the picks ``copick:CONFIG.json/OBJECT:USER/SESSION``, or with ``@SPACING`` at its end the segmentations. A
        tomogram's name
        is its file's, without endings and words such as ``_instances``, ``_labels``, ``_particles``; a file that has
        only such a word (``labels.mrc``) is named by its folder; `tomogram_base_name` says what else is left out.
        Where a volume and a list have one name, both count.
    what : str
        "predicted" or "true", for messages.

    Returns
    -------
    dict of str to SideFiles

    Raises
    ------
    FileNotFoundError, ValueError
        If there is nothing, or two files claim one name.
    """
    if is_copick(path):
        return _from_copick(str(path))
    path = Path(path).expanduser()
    if path.is_dir() and not is_zarr(path):
        if (path / "dataset.json").is_file():
            return _from_datalist(path / "dataset.json")
        found = _from_folder(path)
        if not found:
            raise ValueError(
                f"{path}: expected {what} label volumes ({', '.join(VOLUME_SUFFIXES[:6])}, ...) or particle lists "
                f"({', '.join(sorted(_list_suffixes()))}) in this folder, found none"
            )
        return found
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder of {what} particles. Check the path.")
    if path.name == "dataset.json":
        return _from_datalist(path)
    name, kind, _ = _classify(path)
    if kind == "volume":
        beside = _from_files(p for p in path.parent.iterdir() if _classify(p)[:2] == (name, "list"))
        return {name: replace(beside.get(name, SideFiles(name)), volume=path)}
    if kind == "list":
        return _by_name(_members(SideFiles(name, particles=path)))
    raise ValueError(
        f"{path}: expected {what} particles as a label volume ({', '.join(VOLUME_SUFFIXES)}) or a list "
        f"({', '.join(sorted(_list_suffixes()))}), got {path.suffix or 'a name without an ending'}"
    )


def pair_sides(
    predicted: str | Path, true: str | Path
) -> tuple[list[tuple[str, SideFiles, SideFiles]], dict[str, list[str]]]:
    """Match two sides by tomogram.

    One tomogram on each side is one pair whatever the names, if each was given as a file; else names decide.

    Returns
    -------
    pairs : list of (name, predicted, true), sorted by name
    unmatched : dict
        Names found on one side only: ``only_predicted`` and ``only_true``.

    Raises
    ------
    ValueError
        If no name is on both sides; lists what was found.
    """
    left, right = find_sides(predicted, "predicted"), find_sides(true, "true")
    if len(left) == len(right) == 1 and _is_one_file(predicted) and _is_one_file(true):
        (name, first), (_, second) = *left.items(), *right.items()
        return [(name, first, second)], {"only_predicted": [], "only_true": []}
    common = sorted(left.keys() & right.keys())
    if not common:
        raise ValueError(
            f"evaluate: expected the same tomogram names on both sides; predicted has {_listed(left)}, truth has "
            f"{_listed(right)}. Rename the files, or give one file on each side."
        )
    unmatched = {"only_predicted": sorted(left.keys() - right.keys()), "only_true": sorted(right.keys() - left.keys())}
    return [(name, left[name], right[name]) for name in common], unmatched


def _is_one_file(path: str | Path) -> bool:
    return is_zarr(path) or Path(path).expanduser().is_file()


def _listed(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _list_suffixes() -> set[str]:
    return {suffix for item in FORMATS.values() if item.read is not None for suffix in item.suffixes}


def _classify(path: Path) -> tuple[str, str, bool]:
    """Name of the tomogram; "volume", "list" or ""; whether the file name says that it holds particles."""
    path = next((one for one in (path, *path.parents) if one.name.lower().endswith(".zarr")), path)  # of a level
    lower = path.name.lower()
    volume_suffix = max((s for s in VOLUME_SUFFIXES if lower.endswith(s)), key=len, default="")
    list_suffix = max((s for s in _list_suffixes() if lower.endswith(s)), key=len, default="")
    if lower.startswith(".") or not (volume_suffix or list_suffix):
        return "", "", False
    kind, words = ("volume", VOLUME_WORDS) if volume_suffix else ("list", LIST_WORDS)
    folder = os.path.dirname(os.path.abspath(path))
    stem = tomogram_stem(path.name) if volume_suffix else path.name[: -len(list_suffix)]
    for word in words:
        if stem.lower() == word:
            return tomogram_base_name(os.path.basename(folder)), kind, True
        if stem.lower().endswith(f"_{word}"):
            return tomogram_base_name(os.path.join(folder, stem[: -len(word) - 1])), kind, True
    return tomogram_base_name(os.path.join(folder, stem)), kind, False


def _from_folder(folder: Path) -> dict[str, SideFiles]:
    """Files that say they hold particles; where none does, every volume and list that may."""
    files = sorted(_files_below(folder))
    named = [p for p in files if _classify(p)[2]]
    others = [
        p for p in files if _classify(p)[1] and tomogram_stem(p.name).lower() not in PLAIN_NAMES and not _is_ours(p)
    ]
    found = _from_files(named or others)
    sides = [side if side.volume else member for side in found.values() for member in _members(side)]
    return _by_name(sides, join=True)


def _files_below(folder: Path) -> Iterator[Path]:
    """All files; a Zarr counts as one."""
    for place, folders, names in os.walk(folder):
        zarrs = [name for name in folders if is_zarr(name)]
        folders[:] = [name for name in folders if name not in zarrs]
        yield from (Path(place, name) for name in [*names, *zarrs])


def _by_name(sides: Iterable[SideFiles], join: bool = False) -> dict[str, SideFiles]:
    """One entry for every name; the same entry may come twice. ``join`` puts a volume and a list of one name together.

    Raises
    ------
    ValueError
        If two tomograms have one name.
    """
    found: dict[str, SideFiles] = {}
    for side in sides:
        other = found.setdefault(side.name, side)
        if join and other.particles is None and side.volume is None:
            found[side.name] = replace(side, volume=other.volume)
        elif join and side.particles is None and other.volume is None:
            found[side.name] = replace(other, volume=side.volume)
        elif other != side:
            raise ValueError(
                f"evaluate: {_described(other)} and {_described(side)} are both of the tomogram {side.name!r}; "
                "rename one, or evaluate them apart"
            )
    return found


def _described(side: SideFiles) -> str:
    return f"{side.volume or side.particles}" + (f" ({side.member})" if side.member else "")


def _is_ours(path: Path) -> bool:
    return path.name in ("metrics.csv", "matches.csv") or "_evaluation" in path.name


def _from_files(files: Iterable[Path]) -> dict[str, SideFiles]:
    preference = [suffix for item in FORMATS.values() for suffix in item.suffixes]  # our own table first
    found: dict[str, SideFiles] = {}
    for path in files:
        name, kind, _ = _classify(path)
        side = found.setdefault(name, SideFiles(name))
        if kind == "volume":
            if side.volume is not None:
                raise ValueError(
                    f"evaluate: {side.volume} and {path} are both volumes of {name!r}; keep one of them in the folder"
                )
            found[name] = replace(side, volume=path)
        elif side.particles is None or _rank(path, preference) < _rank(side.particles, preference):
            found[name] = replace(side, particles=path)
    return found


def _rank(path: Path, preference: list[str]) -> int:
    return min(
        (i for i, suffix in enumerate(preference) if path.name.lower().endswith(suffix)), default=len(preference)
    )


def _members(side: SideFiles) -> list[SideFiles]:
    """One entry for every tomogram that a list names."""
    if (
        side.volume is not None
        or side.particles is None
        or side.particles.suffix.lower() not in (".csv", ".tsv", ".star")
    ):
        return [side]
    names = _named_tomograms(side.particles)
    if len(names) < 2:
        return [side]
    return [replace(side, name=tomogram_base_name(name), member=name) for name in names]


def _named_tomograms(path: Path) -> list[str]:
    if is_copick(path):
        return sorted({str(name) for name in read_particles(path).tomogram if name})
    return listed_tomograms(path)


def _from_copick(uri: str) -> dict[str, SideFiles]:
    """Segmentations with the picks of the same words where there are some, or the picks alone; by run."""
    picks = Path(uri.rpartition("@")[0] if is_segmentation_uri(uri) else uri)
    picked = runs_with_picks(picks)
    if is_segmentation_uri(uri):
        sides = [
            SideFiles(tomogram_base_name(run), one.path, *((picks, run) if run in picked else ()))
            for run, one in segmentations(uri).items()
        ]
    else:
        sides = [SideFiles(tomogram_base_name(run), None, picks, run) for run in picked]
        if not sides:
            read_particles(picks)  # says what there is
    return _by_name(sides)


def _from_datalist(path: Path) -> dict[str, SideFiles]:
    content = read_object(path, "a datalist")
    sides = []
    for section in ("training", "validation", "test"):
        for item in content.get(section, []):
            name = tomogram_base_name(os.path.abspath(path.parent / item["image"]))
            volume, particles = (path.parent / item[key] if item.get(key) else None for key in ("label", "particles"))
            if volume is not None or particles is not None:
                sides.append(SideFiles(name, volume, particles))
    if not sides:
        raise ValueError(f"{path}: expected items with a label or particles, found none")
    return _by_name(sides)
