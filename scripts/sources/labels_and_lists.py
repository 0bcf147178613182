"""The particles that a user names, by tomogram: label volumes and particle lists, of evaluations and of `prepare`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from custom_transforms.files.names import check_name, tomogram_base_name
from custom_transforms.volumes.read import VOLUME_SUFFIXES
from custom_transforms.volumes.zarr_read import is_zarr
from scripts.particles.registry import listed_tomograms
from scripts.sources.copick_labels import is_segmentation_uri, segmentations
from scripts.sources.copick_project import is_copick, runs_with_picks
from scripts.sources.datalists import is_datalist, read_datalist
from scripts.sources.file_kinds import kind_of, list_suffixes, may_hold_particles, rank
from scripts.sources.named import listed, named_paths
from scripts.sources.particle_lists import read_particles

__all__ = ["SideFiles", "TomogramFile", "files_by_tomogram", "find_sides", "is_one_file"]

NAME = "{name}"
SEVERAL = (".csv", ".tsv", ".star")  # lists that name the tomogram of each particle
WHAT = "particles: label volumes, lists, a folder or a pattern of these, a dataset.json, or copick:CONFIG.json/..."


@dataclass(frozen=True)
class SideFiles:
    """The files of one tomogram on one side; at least one of the two is given.

    ``member`` names the tomogram inside a list that holds several.
    """

    name: str
    volume: Path | None = None
    particles: Path | None = None
    member: str | None = None


@dataclass(frozen=True)
class TomogramFile:
    """The file of one tomogram.

    ``member`` names the tomogram inside a list that holds several; ``shared`` says that the file was named for all
    tomograms at once, so that its particles are still to be matched with them.
    """

    path: Path
    member: str | None = None
    shared: bool = False


def find_sides(named: str | Path, what: str = "", format: str | None = None) -> dict[str, SideFiles]:
    """Find label volumes and particle lists by tomogram.

    Parameters
    ----------
    named : path
        A label volume, a particle list, a folder of them (searched through), a pattern, a path with ``{name}`` for
        each tomogram's name, a datalist, or of a copick project the picks ``copick:CONFIG.json/OBJECT:USER/SESSION``,
        or with ``@SPACING`` at its end the segmentations. A tomogram's name is its file's, without endings and words
        such as ``_instances``, ``_labels``, ``_particles``; a file that has only such a word (``labels.mrc``) is named
        by its folder; `tomogram_base_name` says what else is left out. Where a volume and a list have one name, both
        count.
    what : str
        "predicted" or "true", for messages.
    format : str, optional
        Of the lists; by default told by their endings and content.

    Returns
    -------
    dict of str to SideFiles

    Raises
    ------
    FileNotFoundError, ValueError
        If there is nothing, or two files claim one name.
    """
    if is_copick(named):
        return _from_copick(str(named))
    if NAME in str(named):
        return _from_template(str(named), what, format)
    paths = named_paths(named, f"{what} {WHAT}".strip())
    files = [path for path in paths if not path.is_dir() or is_zarr(path)]
    if len(paths) == len(files) == 1:
        return _from_datalist(files[0]) if is_datalist(files[0]) else _from_file(files[0], what, format)
    sides = list(_from_chosen(files, format).values())
    for folder in (path for path in paths if path not in files):
        found = _from_datalist(folder) if is_datalist(folder) else _from_chosen(_files_below(folder), format)
        sides += found.values()
    if not sides:
        raise ValueError(
            f"{named}: expected {what} label volumes ({', '.join(VOLUME_SUFFIXES[:6])}, ...) or particle lists "
            f"({', '.join(list_suffixes(format))}), found none in it."
        )
    return _by_name(sides, join=True)


def is_one_file(named: str | Path) -> bool:
    """Tell whether a name stands for a single file, which is compared whatever the tomogram is called."""
    if is_copick(named) or NAME in str(named):
        return False
    paths = named_paths(named, WHAT)
    return len(paths) == 1 and (is_zarr(paths[0]) or paths[0].is_file())


def files_by_tomogram(
    named: str, names: Sequence[str], kind: Literal["volume", "particles"], format: str | None = None
) -> dict[str, TomogramFile]:
    """The label volume or particle list of every tomogram.

    Parameters
    ----------
    named : str
        As in `find_sides`. One file, or picks of a copick project, are of all tomograms: ``shared``.
    names : sequence of str
        Of the tomograms, as `tomogram_base_name` gives them.
    kind : {"volume", "particles"}
        What is looked for.
    format : str, optional
        Of the lists.

    Returns
    -------
    dict of str to TomogramFile
        For every name.

    Raises
    ------
    FileNotFoundError, ValueError
        If a tomogram has none.
    """
    what = "label volume" if kind == "volume" else "particle list"
    if is_copick(named) and not is_segmentation_uri(named):
        runs_with_picks(named)  # the project is there
        return dict.fromkeys(names, TomogramFile(Path(named), shared=True))
    if NAME in named:
        return {name: TomogramFile(_only(named.replace(NAME, name), f"the {what} of {name}")) for name in names}
    if is_one_file(named) and not is_datalist(path := named_paths(named, what)[0]):
        return dict.fromkeys(names, TomogramFile(path, shared=True))
    sides = find_sides(named, format=format)
    found = {name: TomogramFile(path, side.member) for name, side in sides.items() if (path := getattr(side, kind))}
    if lacking := [name for name in names if name not in found]:
        raise FileNotFoundError(
            f"{named}: expected a {what} of every tomogram, found none of {listed(lacking)}; there are some of "
            f"{listed(sorted(found)) or 'none'}."
        )
    return {name: found[name] for name in names}


def _only(named: str, what: str) -> Path:
    paths = named_paths(named, what)
    if len(paths) > 1:
        raise ValueError(f"{named}: expected {what}, got {len(paths)} files: {listed(map(str, paths), most=5)}.")
    return paths[0]


def _from_file(path: Path, what: str, format: str | None) -> dict[str, SideFiles]:
    name, kind, _ = kind_of(path, format)
    if kind == "volume":
        lists = (one for one in path.parent.iterdir() if kind_of(one, format)[:2] == (name, "particles"))
        return {name: replace(_grouped(lists, format).get(name, SideFiles(name)), volume=path)}
    if kind == "particles" or format is not None:
        return _by_name(_members(SideFiles(name or tomogram_base_name(path.with_suffix("")), particles=path), format))
    raise ValueError(
        f"{path}: expected {what} particles as a label volume ({', '.join(VOLUME_SUFFIXES)}) or a list "
        f"({', '.join(list_suffixes(None))}), got {path.suffix or 'a name without an ending'}. Rename it, or give the "
        "format of a list."
    )


def _from_chosen(files: Iterable[Path], format: str | None) -> dict[str, SideFiles]:
    """Of several files those that say they hold particles; where none does, every volume and list that may."""
    files = sorted(files)
    certain = [path for path in files if kind_of(path, format).certain]
    found = _grouped(certain or [path for path in files if may_hold_particles(path, format)], format)
    sides = [side if side.volume else member for side in found.values() for member in _members(side, format)]
    return _by_name(sides, join=True)


def _files_below(folder: Path) -> Iterator[Path]:
    """All files; a Zarr counts as one."""
    for place, folders, names in os.walk(folder):
        zarrs = [name for name in folders if is_zarr(name)]
        folders[:] = [name for name in folders if name not in zarrs]
        yield from (Path(place, name) for name in [*names, *zarrs])


def _from_template(named: str, what: str, format: str | None) -> dict[str, SideFiles]:
    """Every file that fits a path with ``{name}``, which stands for the same text wherever it is."""
    first, *others = (re.escape(part) for part in os.path.expanduser(named).split(NAME))
    pattern = f"{first}(?P<name>[^/]+)" + "(?P=name)".join(others)
    names = {}
    for path in named_paths(named.replace(NAME, "*"), f"{what} {WHAT}".strip()):
        if match := re.fullmatch(pattern.replace(r"\*", "[^/]*").replace(r"\?", "[^/]"), str(path)):
            names[path] = tomogram_base_name(match["name"])
    sides = []
    for path, name in names.items():
        kind = kind_of(path, format).kind
        sides.append(SideFiles(name, volume=path) if kind == "volume" else SideFiles(name, particles=path))
    if not sides:
        raise FileNotFoundError(f"{named}: expected {what} {WHAT}, found no file with one name for {NAME}.")
    return _by_name(sides)


def _by_name(sides: Iterable[SideFiles], join: bool = False) -> dict[str, SideFiles]:
    """One entry for every name; the same entry may come twice. ``join`` puts a volume and a list of one name together.

    Raises
    ------
    ValueError
        If two tomograms have one name, or it is one that no file may have.
    """
    found: dict[str, SideFiles] = {}
    for side in sides:
        check_name(side.name, f"{_described(side)}: the tomogram")
        other = found.setdefault(side.name, side)
        if join and other.particles is None and side.volume is None:
            found[side.name] = replace(side, volume=other.volume)
        elif join and side.particles is None and other.volume is None:
            found[side.name] = replace(other, volume=side.volume)
        elif other != side:
            raise ValueError(
                f"{_described(other)} and {_described(side)} are both of the tomogram {side.name!r}; rename one, or "
                "give them to separate runs."
            )
    return found


def _described(side: SideFiles) -> str:
    return f"{side.volume or side.particles}" + (f" ({side.member})" if side.member else "")


def _grouped(files: Iterable[Path], format: str | None) -> dict[str, SideFiles]:
    """Volume and list of each name; of several lists the one whose format comes first, our own table."""
    found: dict[str, SideFiles] = {}
    for path in files:
        name, kind, _ = kind_of(path, format)
        side = found.setdefault(name, SideFiles(name))
        if kind == "volume":
            if side.volume is not None:
                raise ValueError(
                    f"{side.volume} and {path} are both volumes of {name!r}: expected one of each tomogram. Keep one."
                )
            found[name] = replace(side, volume=path)
        elif side.particles is None or rank(path) < rank(side.particles):
            found[name] = replace(side, particles=path)
    return found


def _members(side: SideFiles, format: str | None) -> list[SideFiles]:
    """One entry for every tomogram that a list names."""
    path = side.particles
    if side.volume is not None or path is None or (format is None and path.suffix.lower() not in SEVERAL):
        return [side]
    names = listed_tomograms(path, format)
    return [side] if len(names) < 2 else [replace(side, name=tomogram_base_name(one), member=one) for one in names]


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
    sides = []
    for item in read_datalist(path).every_item(existing=("label", "particles")):
        volume, particles = (Path(item[key]) if item.get(key) else None for key in ("label", "particles"))
        if volume is not None or particles is not None:
            sides.append(SideFiles(tomogram_base_name(item["image"]), volume, particles))
    if not sides:
        raise ValueError(f"{path}: expected items with a label or particles, found none.")
    return _by_name(sides)
