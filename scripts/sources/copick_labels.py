"""Instance segmentations of copick projects, to train on and to compare with; `copick_write` puts them there.

``copick:project.json/ribosome:alice/1@10.0`` names those of an object, user and session at a voxel spacing, and
``copick:project.json/wbp@10.0/ribosome:alice/1`` the tomograms of a type and spacing that have them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from scripts.sources.copick_project import (
    CopickProject,
    CopickTomogram,
    find_tomograms,
    fits,
    open_project,
    split_picks_uri,
    split_uri,
)

__all__ = ["CopickSegmentation", "is_segmentation_uri", "labelled_tomograms", "list_segmentations", "segmentations"]

FOLDER = "InstanceSegmentations"
SPACING_TOLERANCE = 1e-3  # Å; copick writes three digits
_FILE = re.compile(r"^(?P<spacing>\d+(?:\.\d+)?)_(?P<user>[^_]+)_(?P<session>[^_]+)_(?P<name>.+)\.zarr$")
_URI = re.compile(r"^(?P<picks>.+)@(?P<spacing>\d+(?:\.\d+)?)$")
_LABELLED = re.compile(r"^(?P<tomograms>[^/]*@[^/]+)/(?P<labels>.+)$")


@dataclass(frozen=True)
class CopickSegmentation:
    """One instance segmentation of a project: an OME-Zarr that every reader of labels takes by its ``path``."""

    run: str
    object_name: str
    user: str
    session: str
    voxel_spacing: float
    path: Path


def list_segmentations(
    project: CopickProject, object_name: str = "*", user: str = "*", session: str = "*", spacing: float | None = None
) -> list[CopickSegmentation]:
    """List a project's instance segmentations, sorted; ``*`` takes any, what the overlay has hides the static folder's.

    Returns
    -------
    list of CopickSegmentation
        Possibly empty.
    """
    found: dict[tuple, CopickSegmentation] = {}
    for root in project.roots:
        for path in (root / "ExperimentRuns").glob(f"*/{FOLDER}/*.zarr"):
            match = _FILE.match(path.name)
            if match is not None and not path.name.startswith("."):
                key = (path.parents[1].name, match["name"], match["user"], match["session"], float(match["spacing"]))
                found.setdefault(key, CopickSegmentation(*key, path))
    return [
        one
        for _, one in sorted(found.items(), key=lambda item: item[0])
        if fits((object_name, user, session), (one.object_name, one.user, one.session))
        and (spacing is None or abs(one.voxel_spacing - spacing) < SPACING_TOLERANCE)
    ]


def is_segmentation_uri(text: str | Path) -> bool:
    """Tell whether a copick URI names segmentations, not picks.

    Examples
    --------
    >>> [is_segmentation_uri(f"copick:p.json/{one}") for one in ("ribosome:alice/1@10.0", "ribosome:alice/1", "wbp@10")]
    [True, False, False]
    """
    match = _URI.match(str(text))
    return match is not None and ":" in split_uri(match["picks"])[1]


def segmentations(uri: str | Path) -> dict[str, CopickSegmentation]:
    """The segmentation of every run that ``copick:CONFIG.json/OBJECT:USER/SESSION@SPACING`` names.

    Raises
    ------
    ValueError
        If there is none, or a run has several; lists what there is.
    """
    match = _URI.match(str(uri))
    if match is None:
        raise ValueError(f"{uri}: expected copick:CONFIG.json/OBJECT:USER/SESSION@SPACING, to name segmentations.")
    config, *words = split_picks_uri(match["picks"])
    return _one_per_run(str(uri), open_project(config), words, float(match["spacing"]))


def labelled_tomograms(uri: str | Path) -> list[tuple[CopickTomogram, CopickSegmentation]]:
    """The tomograms and labels of ``copick:CONFIG.json/TYPE@SPACING/OBJECT:USER/SESSION``, sorted by run.

    Returns
    -------
    list of (CopickTomogram, CopickSegmentation)
        Of every run that has both; at least one.

    Raises
    ------
    ValueError
        If no run has both, or something has to be chosen; lists what there is.
    """
    config, rest = split_uri(str(uri))
    match = _LABELLED.match(rest)
    if match is None:
        raise ValueError(
            f"{uri}: expected copick:CONFIG.json/TYPE@SPACING/OBJECT:USER/SESSION, tomograms and their instance "
            f"segmentations, such as copick:{config}/wbp@10.0/ribosome:alice/1. A project that has picks alone is "
            "made into a data set by `python -m scripts prepare`."
        )
    tomograms = find_tomograms(f"copick:{config}/{match['tomograms']}")
    _, *words = split_picks_uri(f"copick:{config}/{match['labels']}")
    labels = _one_per_run(str(uri), open_project(config), words, tomograms[0].voxel_spacing)
    pairs = [(one, labels[one.run]) for one in tomograms if one.run in labels]
    if not pairs:
        raise ValueError(
            f"{uri}: expected a run with tomogram and segmentation, got tomograms of "
            f"{', '.join(one.run for one in tomograms[:10])} and segmentations of {', '.join(list(labels)[:10])}."
        )
    return pairs


def _one_per_run(uri: str, project: CopickProject, words: list[str], spacing: float) -> dict[str, CopickSegmentation]:
    object_name, user, session = words
    chosen: dict[str, CopickSegmentation] = {}
    for one in list_segmentations(project, object_name, user, session, spacing):
        other = chosen.setdefault(one.run, one)
        if other is not one:
            raise ValueError(f"{uri}: {one.run} has {_named(other)} and {_named(one)}. Name one of them.")
    if not chosen:
        known = ", ".join(sorted({_named(one) for one in list_segmentations(project)})) or "none"
        raise ValueError(
            f"{uri}: no instance segmentation {object_name}:{user}/{session}@{spacing:g}; the project has {known}."
        )
    return chosen


def _named(one: CopickSegmentation) -> str:
    return f"{one.object_name}:{one.user}/{one.session}@{one.voxel_spacing:g}"
