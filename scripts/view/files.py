"""Files beside a detection that other programs open: ChimeraX and ArtiaX scripts with markers, an IMOD model."""

from __future__ import annotations

import re
import warnings
from importlib.util import find_spec
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import pandas as pd

from custom_transforms.units import as_voxel_size_zyx
from scripts.particles.csv_table import particles_from_table
from scripts.particles.registry import write_particles
from scripts.particles.shared.context import TomogramContext
from scripts.particles.shared.format import write_text

__all__ = ["particle_diameters", "write_view_files"]

LOW, HIGH = np.array([0.27, 0.0, 0.33]), np.array([0.99, 0.9, 0.14])  # viridis' ends: marker colours follow the score


_UNSAFE = re.compile(r"""["';\\\x00-\x1f\x7f\x85\u2028\u2029]""")  # they end a text or a command of ChimeraX


def particle_diameters(table: pd.DataFrame, default: float) -> np.ndarray:
    """Å, the diameter of the sphere of each particle's volume; ``default`` where the table has none.

    Examples
    --------
    >>> particle_diameters(pd.DataFrame({"volume_angstrom3": [523598.8, 0.0]}), 80.0).round(1).tolist()
    [100.0, 80.0]
    """
    if "volume_angstrom3" not in table:
        return np.full(len(table), float(default))
    volumes = pd.to_numeric(table["volume_angstrom3"], errors="coerce").to_numpy(float)
    with np.errstate(invalid="ignore"):
        return np.where(volumes > 0, np.cbrt(np.maximum(volumes, 0) * 6 / np.pi), float(default))


def write_view_files(
    prefix: str | Path,
    table: pd.DataFrame,
    voxel_size_zyx: np.ndarray | float,
    size_zyx: tuple[int, int, int],
    tomogram: str | Path | None = None,
) -> list[Path]:
    """Write what ChimeraX, ArtiaX and IMOD need to show a detection.

    ``<prefix>_chimerax.cxc`` opens tomogram, labels and markers (``.cmm``, coloured by score); ``<prefix>_artiax.cxc``
    opens tomogram and particles in ArtiaX (``.coords``); ``<prefix>.mod`` is an IMOD model, written if imodmodel is
    installed. In both programs the volumes' first voxel is at 0 Å, which is where the particles are counted from.

    Parameters
    ----------
    prefix : path
        ``<output_dir>/<tomogram>/<tomogram>``, as detect writes them.
    table : DataFrame
        Particle table; rows with a reason in ``dropped_by`` are left out.
    voxel_size_zyx : ndarray, shape (3,), or float
        Å.
    size_zyx : tuple of 3 int
        Voxels of the tomogram.
    tomogram : path, optional
        Named in the scripts by its absolute path; ChimeraX reads no Zarr, so such a tomogram is left out.

    Raises
    ------
    ValueError
        If the files' name holds a character that ends a text or a command in these scripts.
    """
    prefix = Path(prefix)
    if _UNSAFE.search(prefix.name):
        raise ValueError(
            f"{prefix.name!r}: expected a name without quotes, semicolons, backslashes and control characters, which "
            "ChimeraX would take for commands. Rename the detection."
        )
    voxel = as_voxel_size_zyx(voxel_size_zyx)
    if "dropped_by" in table:
        table = table[table["dropped_by"].fillna("") == ""].reset_index(drop=True)
    diameters = particle_diameters(table, default=10 * float(voxel.mean()))
    shown = None if tomogram is None or ".zarr" in str(tomogram).lower() else Path(tomogram).resolve()
    if shown is not None and _UNSAFE.search(shown.as_posix()):
        warnings.warn(
            f"{shown.as_posix()!r}: its path holds a character that ChimeraX would take for a command; the scripts do "
            "not open the tomogram. Open it by hand, or rename it.",
            stacklevel=2,
        )
        shown = None
    files = {end: prefix.with_name(prefix.name + end) for end in _ENDS}
    particles = particles_from_table(table)
    write_text(files["_markers.cmm"], _markers(prefix.name, table, diameters))
    write_text(files["_chimerax.cxc"], _chimerax(prefix.name, shown, size_zyx))
    coordinates = particles.centers_xyz_angstrom / voxel[::-1]
    lines = [" ".join(f"{value:.4f}" for value in row) for row in coordinates]
    write_text(files["_artiax.coords"], "\n".join(lines) + ("\n" if lines else ""))
    usual = float(np.median(diameters)) if len(table) else 100.0
    write_text(files["_artiax.cxc"], _artiax(prefix.name, shown, voxel, usual))
    written = [path for end, path in files.items() if end != ".mod"]
    if find_spec("imodmodel") is not None:
        write_particles(particles, files[".mod"], "imod", TomogramContext(voxel_size_zyx=voxel, size_zyx=size_zyx))
        written.append(files[".mod"])
    return written


_ENDS = ("_markers.cmm", "_chimerax.cxc", "_artiax.coords", "_artiax.cxc", ".mod")


def _markers(name: str, table: pd.DataFrame, diameters: np.ndarray) -> str:
    """A ChimeraX marker set; Å from the middle of the first voxel."""
    scores = (
        pd.to_numeric(table["score"], errors="coerce").fillna(0).to_numpy()
        if "score" in table
        else np.zeros(len(table))
    )
    colours = LOW + np.clip(scores, 0, 1)[:, None] * (HIGH - LOW)
    lines = [f"<marker_set name={quoteattr(name + ' particles')}>"]
    for row, diameter, colour in zip(table.itertuples(), diameters, colours, strict=True):
        red, green, blue = colour
        note = f"{row.particle_id} {getattr(row, 'score', '')}".strip()
        lines.append(
            f'<marker id="{row.Index + 1}" x="{row.x_angstrom:.3f}" y="{row.y_angstrom:.3f}" z="{row.z_angstrom:.3f}" '
            f'r="{red:.3f}" g="{green:.3f}" b="{blue:.3f}" radius="{diameter / 4:.2f}" note={quoteattr(note)}/>'
        )
    return "\n".join([*lines, "</marker_set>", ""])


def _chimerax(name: str, tomogram: Path | None, size_zyx: tuple[int, ...]) -> str:
    lines = [f"# {name}: open this file in ChimeraX"]  # numbers from 101: what is open already stays as it is
    if tomogram is not None:
        lines += [
            f'open "{tomogram.as_posix()}" id 101',
            "volume #101 originIndex 0,0,0",
            f"volume #101 style image planes z,{size_zyx[0] // 2}",
        ]
    lines += [
        f'open "{name}_instances.mrc" id 102',
        "volume #102 originIndex 0,0,0",
        "volume #102 region all style surface step 1 level 0.5 color #ff8c00 transparency 0.6",
        f'open "{name}_markers.cmm" id 103',
        "view orient",
    ]
    return "\n".join([*lines, ""])


def _artiax(name: str, tomogram: Path | None, voxel: np.ndarray, diameter: float) -> str:
    lines = [f"# {name}: open this file in ChimeraX with the ArtiaX plug-in", "artiax start"]
    if tomogram is not None:
        lines.append(f'artiax open tomo "{tomogram.as_posix()}"')  # ArtiaX puts its first voxel at 0 Å itself
    lines += [
        f'open "{name}_artiax.coords" format coords',
        f"artiax particles originScaleFactor {voxel[2]:g} radius {diameter / 4:.1f}",
        "artiax view xy",
    ]
    return "\n".join([*lines, ""])
