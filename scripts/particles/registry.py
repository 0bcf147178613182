"""All particle-list formats by name, and reading and writing by name, ending or content."""

from __future__ import annotations

import difflib
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from scripts.particles.coords_text import COORDS
from scripts.particles.copick_json import COPICK
from scripts.particles.cryolo_cbox import CRYOLO
from scripts.particles.csv_table import CSV
from scripts.particles.czi_ndjson import CZI
from scripts.particles.deepfinder_xml import DEEPFINDER
from scripts.particles.dynamo_table import DYNAMO
from scripts.particles.em_motive_list import EM_MOTIVE_LIST
from scripts.particles.eman2_json import EMAN2
from scripts.particles.imod_model import IMOD
from scripts.particles.original_txt import ORIGINAL_TXT
from scripts.particles.particle_list import ParticleList
from scripts.particles.relion5_star import RELION5
from scripts.particles.relion_star import RELION3, RELION4, WARP
from scripts.particles.shared.binning import angstrom_to_unbinned_xyz
from scripts.particles.shared.context import ParticleListWarning, TomogramContext, tomogram_base_name
from scripts.particles.shared.declared import Says, settle
from scripts.particles.shared.format import Format
from scripts.particles.shared.options import context_of
from scripts.particles.shared.plausible import check_fractions
from scripts.particles.shared.star_tables import describe_star, star_columns
from scripts.particles.shrec_text import SHREC
from scripts.particles.stopgap_star import STOPGAP

__all__ = [
    "FORMATS",
    "find_format",
    "guess_format",
    "listed_tomograms",
    "losses",
    "read_particles",
    "settled_context",
    "write_particles",
]

# Where several formats share an ending, the first is written by default.
_ALL = (
    CSV, ORIGINAL_TXT, DEEPFINDER, RELION5, RELION4, WARP, RELION3, DYNAMO, EM_MOTIVE_LIST, COPICK, CZI, STOPGAP, IMOD,
    EMAN2, COORDS, CRYOLO, SHREC,
)  # fmt: skip
FORMATS: dict[str, Format] = {item.name: item for item in _ALL}


def find_format(name: str) -> Format:
    """The format of a name.

    Examples
    --------
    >>> find_format("relion5").suffixes
    ('.star',)
    """
    key = str(name).strip().lower().replace("-", "_")
    if key not in FORMATS:
        by_ending = [one.name for one in FORMATS.values() if f".{key}" in one.suffixes]
        close = by_ending or difflib.get_close_matches(key, FORMATS, 1)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(f"{name!r} is not a particle-list format; known: {', '.join(FORMATS)}.{hint}")
    return FORMATS[key]


def guess_format(path: Path | str, for_writing: bool = False) -> Format:
    """The format of a file: by its ending to write, by its content and then its ending to read.

    Raises
    ------
    ValueError
        If nothing fits; lists the known formats with their endings.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    by_suffix = [f for f in FORMATS.values() if suffix in f.suffixes and (f.write if for_writing else f.read)]
    if not for_writing:
        head = _head(path)
        fitting = [f for f in FORMATS.values() if f.read and f.sniff(head)]
        certain = [f for f in fitting if f is not COORDS]  # bare numbers look like coords, whatever they are
        best = [f for f in fitting if f in by_suffix] or certain
        if not best and re.search(rb"^data_", head, re.IGNORECASE | re.MULTILINE):
            raise ValueError(_unknown_star(path))
        best = best or by_suffix or fitting
        if best:
            return best[0]
    if by_suffix:
        return by_suffix[0]
    known = "; ".join(f"{f.name} ({' '.join(f.suffixes)})" for f in FORMATS.values())
    option = "--to_format" if for_writing else "--from_format"
    raise ValueError(f"{path}: cannot tell the particle-list format; name it with {option}. Known: {known}.")


def read_particles(
    path: Path | str, format: str | None = None, context: TomogramContext | None = None, **options: Any
) -> ParticleList:
    """Read a particle list.

    Parameters
    ----------
    path : path
        A file. (`scripts.sources.particle_lists.read_particles` takes picks of a copick project, too.)
    format : str, optional
        Name of the format; guessed from content and ending if None.
    context : TomogramContext, optional
        The tomogram the list belongs to.
    **options
        Fields of `TomogramContext`, over those of ``context`` (``voxel_size=10.0``, ``binning=4``...).

    Returns
    -------
    ParticleList
        Empty for a list without particles.

    Raises
    ------
    FileNotFoundError, ValueError
        With the file, the format, the column and the row where one can be named.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such particle list. Check the path.")
    chosen = find_format(format) if format else guess_format(path)
    if chosen.read is None:
        raise ValueError(f"{chosen.name} can only be written. Readable: {_names('read')}.")
    settled = _settled(chosen, path, context_of(context, **options))
    particles = chosen.read(path, settled)
    if len(particles) and not chosen.centered:
        counted = particles.centers_xyz_angstrom
        if chosen.counts == "unbinned":
            counted = angstrom_to_unbinned_xyz(counted, settled, chosen.name)
        elif settled.voxel_size_zyx is not None:
            counted = counted / settled.voxel_size_xyz(chosen.name)
        check_fractions(counted, f"{path}: {chosen.name}")
    return particles


def settled_context(
    path: Path | str, format: str | None = None, context: TomogramContext | None = None, **options: Any
) -> TomogramContext:
    """The context of a list with what the list and its tomograms.star say: voxel size, binning."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such particle list. Check the path.")
    return _settled(find_format(format) if format else guess_format(path), path, context_of(context, **options))


def listed_tomograms(path: Path | str, format: str | None = None) -> list[str]:
    """The tomograms that a list names, as it writes them, sorted; no voxel size is needed for that."""
    path = Path(path)
    chosen = find_format(format) if format else guess_format(path)
    if chosen.read is None:
        raise ValueError(f"{chosen.name} can only be written. Readable: {_names('read')}.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ParticleListWarning)
        particles = chosen.read(path, TomogramContext(voxel_size_zyx=np.ones(3), size_zyx=(1, 1, 1), binning=1.0))
    return sorted({str(name) for name in particles.tomogram if name})


def _settled(chosen: Format, path: Path, context: TomogramContext) -> TomogramContext:
    says = chosen.says(path, context) if chosen.says else Says()
    unknown = chosen.says is None and context.tomograms
    names = (context.name,) if unknown and context.name else says.tomograms
    return settle(replace(says, tomograms=names), chosen.counts, context, chosen.name, path)


def write_particles(
    particles: ParticleList,
    path: Path | str,
    format: str | None = None,
    context: TomogramContext | None = None,
    **options: Any,
) -> list[str]:
    """Write a particle list, whole or not at all; see `read_particles` for the options.

    Returns
    -------
    list of str
        What the format could not keep, one sentence each; each is also a `ParticleListWarning`.
    """
    path = Path(path)
    chosen = find_format(format) if format else guess_format(path, for_writing=True)
    if chosen.write is None:
        raise ValueError(f"{chosen.name} can only be read. Writable: {_names('write')}.")
    context = context_of(context, **options)
    if chosen.counts == "unbinned" and len(particles):
        names = tuple(sorted({tomogram_base_name(str(name) or context.name) for name in particles.tomogram} - {""}))
        context = settle(Says(tomograms=names), chosen.counts, context, chosen.name, path)
    chosen.write(particles, path, context)
    lost = losses(particles, chosen)
    for sentence in lost:
        warnings.warn(sentence, ParticleListWarning, stacklevel=2)
    return lost


def losses(particles: ParticleList, chosen: Format) -> list[str]:
    """What a list holds and a format does not keep, one sentence each."""
    held = {
        "score": bool(np.isfinite(particles.score).any()),
        "class": any(particles.class_name),
        "orientation": particles.rotation is not None,
        "radius": bool(np.isfinite(particles.radius_angstrom).any()),
        "tomogram": len(set(particles.tomogram)) > 1,
        "subvoxel": len(particles) > 0,
    }
    words = {
        "score": "scores",
        "class": "classes",
        "orientation": "orientations",
        "radius": "radii",
        "tomogram": "tomogram names, of which there are several",
        "subvoxel": "positions between voxels (they are rounded)",
    }
    return [f"{chosen.name} does not keep {words[k]}." for k in words if held[k] and k not in chosen.keeps]


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(65536)


def _unknown_star(path: Path) -> str:
    columns = star_columns(path)
    looks = describe_star(columns) or "none of the STAR lists that are known"
    listed = ", ".join(dict.fromkeys(columns[:30])) or "none"
    return f"{path}: this STAR file looks like {looks}. It has the columns {listed}."


def _names(direction: str) -> str:
    return ", ".join(f.name for f in FORMATS.values() if getattr(f, direction))
