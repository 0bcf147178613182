"""What the name of a file says: whether it is a label volume or a particle list, and of which tomogram."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, NamedTuple

from custom_transforms.files.names import PLAIN_NAMES, tomogram_base_name, tomogram_stem
from custom_transforms.volumes.read import VOLUME_SUFFIXES
from scripts.particles.registry import FORMATS, find_format

__all__ = ["LABEL_WORDS", "FileKind", "is_called", "kind_of", "list_suffixes", "may_hold_particles", "rank"]

LABEL_WORDS = ("instances", "labels", "label", "truth", "gt")
LIST_WORDS = ("particles", "centers", "points", "coordinates")


class FileKind(NamedTuple):
    """What a file's name says.

    Attributes
    ----------
    name : str
        The tomogram, without endings and words such as ``_labels``; of ``labels.mrc`` the folder's.
    kind : {"volume", "particles", ""}
        By its ending; "" is neither.
    certain : bool
        Whether the name says that it holds particles.
    """

    name: str
    kind: Literal["volume", "particles", ""]
    certain: bool


def kind_of(path: Path, format: str | None = None) -> FileKind:
    """Read a file's name; lists are those of the ``format``, or of any.

    Examples
    --------
    >>> kind_of(Path("a/TS_01_labels.mrc")), kind_of(Path("a/TS_01.star")).kind, kind_of(Path("a/notes.pdf")).kind
    (FileKind(name='TS_01', kind='volume', certain=True), 'particles', '')
    """
    path = next((one for one in (path, *path.parents) if one.name.lower().endswith(".zarr")), path)  # of a level
    lower = path.name.lower()
    volume_suffix = max((s for s in VOLUME_SUFFIXES if lower.endswith(s)), key=len, default="")
    list_suffix = max((s for s in list_suffixes(format) if lower.endswith(s)), key=len, default="")
    if lower.startswith(".") or not (volume_suffix or list_suffix):
        return FileKind("", "", False)
    folder = os.path.dirname(os.path.abspath(path))
    stem = tomogram_stem(path.name) if volume_suffix else path.name[: -len(list_suffix)]
    word = is_called(stem, LABEL_WORDS if volume_suffix else LIST_WORDS)
    rest = stem[: -len(word) - 1] if word else stem
    name = tomogram_base_name(os.path.join(folder, rest) if rest else os.path.basename(folder))
    return FileKind(name, "volume" if volume_suffix else "particles", bool(word))


def is_called(stem: str, words: tuple[str, ...]) -> str:
    """The word that a name is or ends with, "" if none.

    Examples
    --------
    >>> is_called("TS_01_labels", LABEL_WORDS), is_called("labels", LABEL_WORDS), is_called("mylabels", LABEL_WORDS)
    ('labels', 'labels', '')
    """
    return next((word for word in words if stem.lower() == word or stem.lower().endswith(f"_{word}")), "")


def may_hold_particles(path: Path, format: str | None = None) -> bool:
    """Tell whether a file that does not say so may hold particles: no tomogram's usual name, nothing of `evaluate`."""
    ours = path.name in ("metrics.csv", "matches.csv") or "_evaluation" in path.name
    return bool(kind_of(path, format).kind) and tomogram_stem(path.name).lower() not in PLAIN_NAMES and not ours


def list_suffixes(format: str | None = None) -> list[str]:
    """The endings of the lists of a format, or of all that can be read."""
    formats = FORMATS.values() if format is None else [find_format(format)]
    return sorted({suffix for item in formats if item.read is not None for suffix in item.suffixes})


def rank(path: Path) -> int:
    """Which of several lists of one tomogram is taken: the format that comes first, our own table."""
    endings = [suffix for item in FORMATS.values() for suffix in item.suffixes]
    return min((i for i, suffix in enumerate(endings) if path.name.lower().endswith(suffix)), default=len(endings))
