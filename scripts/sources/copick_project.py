"""copick projects in a local folder: their tomograms and picks. `copick_write` puts picks and segmentations in.

A copick project is a config file (JSON) and one or two folders; its layout is read and written here directly, because
the copick package needs zarr below 3 and this project zarr 3. Its words in one line, after a config's path:

- tomograms: ``copick:project.json/wbp@10.0``, the type and the voxel spacing; of every run
- picks: ``copick:project.json/ribosome:alice/1``, object, user and session; ``*`` stands for any of them
- segmentations: see `copick_labels`
"""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from custom_transforms.files.json_object import read_json
from scripts.particles import copick_json
from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.context import TomogramContext

__all__ = [
    "CopickProject",
    "CopickTomogram",
    "find_tomograms",
    "fits",
    "is_copick",
    "list_tomograms",
    "open_project",
    "read_picks",
    "read_picks_by_uri",
    "runs_with_picks",
    "split_picks_uri",
    "split_uri",
]

SCHEME = "copick:"
_URI = re.compile(r"^copick:(?P<config>.+\.json)(?:/(?P<rest>.*))?$", re.IGNORECASE)


@dataclass(frozen=True)
class CopickProject:
    """A config file, and the folders it names.

    Attributes
    ----------
    config : Path
    overlay : Path
        What is written goes here.
    static : Path or None
        Read only, if there is one.
    radii : dict of str to float
        Å by object, nan where the config has none.
    """

    config: Path
    overlay: Path
    static: Path | None
    radii: dict[str, float] = field(default_factory=dict)

    @property
    def roots(self) -> list[Path]:
        """The folders to read from; what the overlay has hides the same in the static folder."""
        return [root for root in (self.overlay, self.static) if root is not None]

    def runs(self) -> list[str]:
        """Names of the tilt series."""
        return sorted(
            {
                one.name
                for root in self.roots
                for one in (root / "ExperimentRuns").glob("*")
                if one.is_dir() and not one.name.startswith(".")
            }
        )


@dataclass(frozen=True)
class CopickTomogram:
    """One tomogram of a project: an OME-Zarr that every reader here takes by its ``path``."""

    run: str
    tomo_type: str
    voxel_spacing: float
    path: Path


def is_copick(text: Any) -> bool:
    """Tell whether a path is one of this scheme.

    Examples
    --------
    >>> is_copick("copick:project.json/wbp@10.0"), is_copick("project.json")
    (True, False)
    """
    return str(text).startswith(SCHEME)


def open_project(config: str | Path) -> CopickProject:
    """Read a copick config.

    Raises
    ------
    FileNotFoundError
        If the config is missing.
    ValueError
        If it is no copick config, or its project is not in a local folder.
    """
    path = Path(str(config).removeprefix(SCHEME)).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such copick config. Check the path.")
    content = read_json(path, "a copick config")
    if not isinstance(content, dict) or "pickable_objects" not in content:
        raise ValueError(f"{path}: expected a copick config with pickable_objects and overlay_root, found neither.")
    kind = content.get("config_type", "filesystem")
    if kind != "filesystem" or not isinstance(content.get("overlay_root"), str):
        raise ValueError(
            f"{path}: expected a copick project in a local folder (config_type filesystem, with an overlay_root), got "
            f"{kind}. Copy the project to a local one first, for example with `copick sync`."
        )
    radii = {}
    if not isinstance(content["pickable_objects"], list):
        raise ValueError(f"{path}: expected a list as pickable_objects, got {str(content['pickable_objects'])[:60]!r}.")
    for one in content["pickable_objects"]:
        if not isinstance(one, dict) or not isinstance(one.get("name"), str):
            raise ValueError(f"{path}: expected pickable_objects with a name each, got {str(one)[:60]!r}.")
        radius = one.get("radius")
        radii[one["name"]] = float(radius) if isinstance(radius, (int, float)) else np.nan
    static = content.get("static_root")
    if not isinstance(static, (str, type(None))):
        raise ValueError(f"{path}: expected a folder as static_root, got {str(static)[:60]!r}.")
    return CopickProject(
        path, _local(path, content["overlay_root"]), None if static is None else _local(path, static), radii
    )


def list_tomograms(
    config: str | Path | CopickProject,
    voxel_spacing: float | None = None,
    tomo_type: str | None = None,
    runs: Sequence[str] | None = None,
) -> list[CopickTomogram]:
    """List a project's tomograms, sorted by run, type and spacing.

    Parameters
    ----------
    config : path or CopickProject
    voxel_spacing : float, optional
        Å; only those within 0.001 Å, as copick writes it.
    tomo_type : str, optional
        Only this type, for example ``wbp``.
    runs : sequence of str, optional
        Only these.

    Returns
    -------
    list of CopickTomogram
        Possibly empty.
    """
    project = config if isinstance(config, CopickProject) else open_project(config)
    found: dict[tuple[str, str, float], Path] = {}
    for root in project.roots:
        for path in (root / "ExperimentRuns").glob("*/VoxelSpacing*/*.zarr"):
            spacing = _number(path.parent.name.removeprefix("VoxelSpacing"))
            hidden = any(part.startswith(".") for part in (path.name, path.parents[1].name))
            if spacing is not None and not hidden and not path.stem.endswith("_features"):
                found.setdefault((path.parents[1].name, path.stem, spacing), path)
    return [
        CopickTomogram(run, kind, spacing, path)
        for (run, kind, spacing), path in sorted(found.items(), key=lambda item: item[0])
        if (voxel_spacing is None or abs(spacing - voxel_spacing) < 1e-3)
        and (tomo_type is None or kind == tomo_type)
        and (runs is None or run in runs)
    ]


def find_tomograms(uri: str) -> list[CopickTomogram]:
    """List the tomograms of ``copick:CONFIG.json`` or ``copick:CONFIG.json/TYPE@SPACING``: one of each run.

    Raises
    ------
    ValueError
        If a type or spacing has to be chosen, or there is none; lists what there is.
    """
    config, rest = split_uri(uri)
    tomo_type, at, spacing = rest.partition("@")
    wanted = _number(spacing) if at else None
    if at and wanted is None:
        raise ValueError(f"{uri}: expected copick:CONFIG.json/TYPE@SPACING, such as wbp@10.0, got {rest!r}.")
    every = list_tomograms(config)
    chosen = list_tomograms(config, wanted, tomo_type or None)
    kinds = sorted({f"{one.tomo_type}@{one.voxel_spacing:g}" for one in chosen})
    if not every:
        places = " or ".join(str(root) for root in open_project(config).roots)
        raise ValueError(
            f"{uri}: the project has no tomograms. Expected {places} to hold "
            "ExperimentRuns/RUN/VoxelSpacing10.000/TYPE.zarr."
        )
    if len(kinds) != 1:
        known = ", ".join(sorted({f"{one.tomo_type}@{one.voxel_spacing:g}" for one in every}))
        got = f"{len(kinds)} kinds" if kinds else "none of these"
        raise ValueError(
            f"{uri}: expected one type and voxel spacing of tomograms, the project has {got}. Name one that it has: "
            f"{known}, as in copick:{config}/wbp@10.0."
        )
    return chosen


def read_picks(
    config: str | Path | CopickProject,
    object_name: str = "*",
    user: str = "*",
    session: str = "*",
    runs: Sequence[str] | None = None,
) -> ParticleList:
    """Read picks of all runs into one list.

    Parameters
    ----------
    config : path or CopickProject
    object_name, user, session : str
        ``*`` takes any.
    runs : sequence of str, optional
        Only these.

    Returns
    -------
    ParticleList
        Å from the corner; the tomogram is the run, the class the object, the radius the object's in the config.

    Raises
    ------
    ValueError
        If no such picks are there (lists what is), or two users or sessions picked the same object of a run.
    """
    project = config if isinstance(config, CopickProject) else open_project(config)
    lists: list[ParticleList] = []
    first: dict[tuple[str, str], str] = {}
    for (run, name, who, when), path in sorted(_pick_files(project, runs).items()):
        if not fits((object_name, user, session), (name, who, when)):
            continue
        other = first.setdefault((run, name), f"{name}:{who}/{when}")
        if other != f"{name}:{who}/{when}":
            raise ValueError(
                f"{project.config}: {run} has {name} picked as {other} and as {name}:{who}/{when}. Choose one: "
                f"copick:{project.config}/{other}."
            )
        picks = copick_json.read(path, TomogramContext(name=run))
        lists.append(
            ParticleList(
                picks.centers_xyz_angstrom,
                tomogram=run,
                class_name=name,
                score=picks.score,
                rotation=picks.rotation,
                radius_angstrom=project.radii.get(name, np.nan),
            )
        )
    if not lists:
        known = {f"{name}:{who}/{when}" for _, name, who, when in _pick_files(project)}
        listed = ", ".join(sorted(known)) or "none"
        raise ValueError(f"{project.config}: no picks {object_name}:{user}/{session}; the project has {listed}.")
    return ParticleList.concat(lists)


def read_picks_by_uri(uri: str | Path, runs: Sequence[str] | None = None) -> ParticleList:
    """`read_picks` of ``copick:CONFIG.json/OBJECT:USER/SESSION``; what is left out is any."""
    return read_picks(*split_picks_uri(str(uri)), runs)


def runs_with_picks(uri: str | Path) -> list[str]:
    """The runs that have picks of ``copick:CONFIG.json/OBJECT:USER/SESSION``, sorted; possibly none."""
    config, *wanted = split_picks_uri(str(uri))
    return sorted({run for run, *have in _pick_files(open_project(config)) if fits(wanted, have)})


def split_picks_uri(uri: str) -> tuple[str, str, str, str]:
    """Take ``copick:CONFIG.json/OBJECT:USER/SESSION`` apart; what is left out is ``*``.

    Examples
    --------
    >>> split_picks_uri("copick:p/project.json/ribosome:alice/1")
    ('p/project.json', 'ribosome', 'alice', '1')
    >>> split_picks_uri("copick:project.json")
    ('project.json', '*', '*', '*')
    """
    config, rest = split_uri(uri)
    name, _, who = rest.partition(":")
    user, _, session = who.partition("/")
    if "/" in name or "/" in session:
        raise ValueError(f"{uri}: expected copick:CONFIG.json/OBJECT:USER/SESSION, got {rest!r} after the config.")
    return config, name or "*", user or "*", session or "*"


def split_uri(uri: str) -> tuple[str, str]:
    """Take the config's path and what follows it apart; ValueError if it is not of this scheme."""
    match = _URI.match(uri)
    if match is None:
        raise ValueError(f"{uri}: expected copick:CONFIG.json, with /TYPE@SPACING or /OBJECT:USER/SESSION after it.")
    return match["config"], (match["rest"] or "").strip("/")


def _local(config: Path, root: str) -> Path:
    protocol, found, rest = root.partition("://")
    if found and protocol not in ("local", "file"):
        raise ValueError(
            f"{config}: expected a project in a local folder, its root is {root}. Copy it to a local one first, for "
            "example with `copick sync`."
        )
    return Path(rest if found else root).expanduser()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def fits(wanted: Sequence[str], have: Sequence[str]) -> bool:
    """Tell whether object, user and session are the wanted ones, where ``*`` takes any."""
    return all(want in ("*", one) for want, one in zip(wanted, have, strict=True))


def _pick_files(project: CopickProject, runs: Sequence[str] | None = None) -> Mapping[tuple[str, str, str, str], Path]:
    """The file of every (run, object, user, session)."""
    found: dict[tuple[str, str, str, str], Path] = {}
    patterns = ["*/Picks/*.json"] if runs is None else [f"{glob.escape(run)}/Picks/*.json" for run in runs]
    for root, pattern in itertools.product(project.roots, patterns):
        for path in (root / "ExperimentRuns").glob(pattern):
            parts = path.stem.split("_", 2)
            if len(parts) == 3 and not path.name.startswith("."):
                found.setdefault((path.parents[1].name, parts[2], parts[0], parts[1]), path)
    return found
