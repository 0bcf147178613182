"""RELION's tomograms.star: unbinned size, pixel size and binning of every tomogram."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scripts.particles.shared.context import RelionTomogram, tomogram_base_name
from scripts.particles.shared.format import number_column
from scripts.particles.shared.star_tables import PIXEL_SIZE, read_particle_block

__all__ = ["BINNING", "read_tomograms_star"]

_SIZE = ("rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ")
BINNING = "rlnTomoTomogramBinning"


def read_tomograms_star(path: Path | str) -> dict[str, RelionTomogram]:
    """What the file says of each tomogram, by its name.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, has no `rlnTomoName` or `rlnTomoSizeX/Y/Z`, or holds a size that cannot be.
    """
    path = Path(path)
    table, _ = read_particle_block(path, "tomograms.star", ("rlnTomoName", *_SIZE))
    sizes = np.stack([number_column(table, column, "tomograms.star", path) for column in _SIZE], axis=1)
    wrong = np.flatnonzero((sizes != np.round(sizes)).any(axis=1) | (sizes < 1).any(axis=1))
    if wrong.size:
        raise ValueError(
            f"{path}: tomograms.star row {wrong[0] + 1}: expected whole numbers above 0 for {', '.join(_SIZE)}, got "
            f"{sizes[wrong[0]].tolist()}. Correct the row."
        )
    pixel, binning = (
        number_column(table, column, "tomograms.star", path, missing=np.nan) for column in (PIXEL_SIZE, BINNING)
    )
    found: dict[str, RelionTomogram] = {}
    for name, (x, y, z), size, times in zip(table["rlnTomoName"], sizes.astype(int), pixel, binning, strict=True):
        base = tomogram_base_name(str(name))
        one = RelionTomogram((int(z), int(y), int(x)), _positive(size), _positive(times))
        if found.setdefault(base, one) != one:
            raise ValueError(f"{path}: tomograms.star names {base} twice, and differently. Remove one of the rows.")
    return found


def _positive(value: float) -> float | None:
    return float(value) if np.isfinite(value) and value > 0 else None
