"""What a tomogram is called: the same name from its file, its folder, and the lists of other programs."""

from __future__ import annotations

import os
import re
from os import PathLike
from pathlib import PurePosixPath

__all__ = ["PLAIN_NAMES", "check_name", "portable_name", "tomogram_base_name", "tomogram_name", "tomogram_stem"]

PLAIN_NAMES = ("tomogram", "tomo", "density", "image", "clean", "noiseless")  # of files named by their folder

_ENDING = r"\.(ome|zarr|mrcs?|rec|map|gz|bz2|st|ali|tiff?|nii|em|hdf|tomostar)"
_ENDINGS = re.compile(rf"({_ENDING})+$", re.IGNORECASE)
# What programs add to the name of a tilt series when they write its tomogram.
_ADDED = {
    "Warp": (r"_\d+(\.\d+)?Apx", "_deconv"),
    "IMOD, eTomo": ("_rec", "_full", "_SIRT", r"_bin\d+", "_trim"),
    "AreTomo": ("_Vol", "_EVN", "_ODD", "_2ND"),
    "RELION 5": (r"_half[12]",),
    "IsoNet, DeepDeWedge": ("_corrected", "_refined"),
    "cryoCARE, Topaz": ("_denoised", "_even", "_odd"),
}
_PROGRAM_ENDINGS = re.compile(rf"({'|'.join(word for words in _ADDED.values() for word in words)}|(?i:{_ENDING}))+$")
_PROGRAM_BEGINNING = re.compile(r"^(rec_)+")  # RELION 5
_COPICK = re.compile(r"(?:^|/)ExperimentRuns/([^/]+)/VoxelSpacing[^/]+/[^/]+\.zarr(?:/.*)?$")

LONGEST = 180  # bytes: file systems take 255, and endings and the name while it is written come on top
_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{one}{number}" for one in ("COM", "LPT") for number in range(1, 10))}


def tomogram_stem(path: str | PathLike) -> str:
    """Name a tomogram after its file, without folder and endings.

    A Zarr, and a level inside one, are named after the Zarr; a tomogram of a copick project after its run; a file with
    a name that any tomogram may have (`PLAIN_NAMES`) after its folder, if the path has one.

    Examples
    --------
    >>> [tomogram_stem(one) for one in ("a/TS_001_10.00Apx.mrc.gz", "TS_01.ome.zarr/0", "vlp_006/tomogram.mrc")]
    ['TS_001_10.00Apx', 'TS_01', 'vlp_006']
    >>> tomogram_stem("p/ExperimentRuns/TS_001/VoxelSpacing10.000/wbp.zarr"), tomogram_stem("tomogram.mrc")
    ('TS_001', 'tomogram')
    """
    text = str(path).replace("\\", "/")
    run = _COPICK.search(text)
    if run:
        return run.group(1)
    parts = [part for part in PurePosixPath(text).parts if part != "/"]
    inside = [number for number, part in enumerate(parts) if part.lower().endswith(".zarr")]
    parts = parts[: inside[-1] + 1] if inside else parts
    stems = [_ENDINGS.sub("", part) or part for part in parts[-2:]]
    if len(stems) == 2 and stems[1].lower() in PLAIN_NAMES and stems[0] != "..":
        return stems[0]
    return stems[-1] if stems else ""


def tomogram_base_name(path: str | PathLike) -> str:
    """Name the tilt series a tomogram belongs to, as all programs share it; names are matched by this.

    `tomogram_stem` without what programs add: RELION's ``rec_``, Warp's pixel size, IMOD's ``_rec``, AreTomo's
    ``_Vol`` ... The name of a tomogram, the path of its file and the folder that detect gives it lead to the same.

    Parameters
    ----------
    path : path
        Of a tomogram, or just its name.

    Examples
    --------
    >>> [tomogram_base_name(n) for n in ("rec_TS_001.mrc", "TS_001_10.00Apx.mrc", "a/TS_001.tomostar", "TS_001")]
    ['TS_001', 'TS_001', 'TS_001', 'TS_001']
    >>> [tomogram_base_name(n) for n in ("TS_001_rec.mrc", "TS_001_full.rec", "TS_001.ome.zarr/0", "TS_001/tomo.mrc")]
    ['TS_001', 'TS_001', 'TS_001', 'TS_001']
    >>> [tomogram_base_name(n) for n in ("TS_001_Vol.mrc", "TS_001_EVN_Vol.mrc", "TS_001_10.00Apx_corrected.mrc")]
    ['TS_001', 'TS_001', 'TS_001']
    """
    stem = tomogram_stem(path)
    return _PROGRAM_ENDINGS.sub("", _PROGRAM_BEGINNING.sub("", stem)) or stem


def tomogram_name(path: str | PathLike) -> str:
    """Name the output folder and files of a tomogram: `tomogram_stem` of its whole path.

    Examples
    --------
    >>> tomogram_name("data/TS_001_10.00Apx.mrc.gz"), tomogram_name("data/TS_001.ome.zarr/0")
    ('TS_001_10.00Apx', 'TS_001')

    A tomogram of a copick project is named after its run, and what ``simulate`` writes after its folder.

    >>> tomogram_name("p/ExperimentRuns/TS_001/VoxelSpacing10.000/wbp.zarr"), tomogram_name("vlp_006/tomogram.mrc")
    ('TS_001', 'vlp_006')
    """
    return portable_name(tomogram_stem(os.path.abspath(path)))


def portable_name(name: str) -> str:
    """Replace what Windows does not take in file names, so that results can be copied there.

    Examples
    --------
    >>> portable_name("TS_01"), portable_name("a:b?"), portable_name("con"), portable_name("x.")
    ('TS_01', 'a_b_', 'con_', 'x_')
    """
    name = re.sub(r'[<>:"/\\|?*\x00-\x1f]|[. ]$', "_", name)
    return f"{name}_" if name.partition(".")[0].upper() in _RESERVED else name


def check_name(name: str, what: str) -> str:
    """Return a name that files may have.

    Parameters
    ----------
    name : str
        Of a tomogram, an object, a user ...
    what : str
        What it names, for the message.

    Raises
    ------
    ValueError
        If it is empty, begins with a dot (its files would be hidden, or in the folder above), holds a separator of
        folders or a control character, or is longer than 180 bytes.

    Examples
    --------
    >>> check_name("TS_01", "the tomogram's name")
    'TS_01'
    >>> check_name("..", "the tomogram's name")
    Traceback (most recent call last):
    ValueError: the tomogram's name: expected a name for files, got '..', which begins with a dot. Rename it.
    """
    reason = ""
    if not name.strip():
        reason = "which is empty"
    elif name.startswith("."):
        reason = "which begins with a dot"
    elif re.search(r"[/\\\x00-\x1f\x7f]", name):
        reason = "which holds a separator of folders or a control character"
    elif len(name.encode("utf-8", "surrogateescape")) > LONGEST:
        reason = f"which is longer than {LONGEST} bytes"
    if reason:
        raise ValueError(f"{what}: expected a name for files, got {name!r}, {reason}. Rename it.")
    return name
