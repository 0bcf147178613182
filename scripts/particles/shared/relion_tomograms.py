"""RELION's tomograms.star: the unbinned size of every tomogram."""

from __future__ import annotations

from pathlib import Path

from scripts.particles.shared.context import tomogram_base_name
from scripts.particles.shared.format import number_column
from scripts.particles.shared.star_tables import read_particle_block

__all__ = ["read_tomograms_star"]

_SIZE = ("rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ")


def read_tomograms_star(path: Path | str) -> dict[str, tuple[int, int, int]]:
    """Sizes (Z, Y, X) in unbinned pixels by tomogram name.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, or has no `rlnTomoName` or `rlnTomoSizeX/Y/Z`.
    """
    path = Path(path)
    table, _ = read_particle_block(path, "tomograms.star", ("rlnTomoName", *_SIZE))
    x, y, z = (number_column(table, column, "tomograms.star", path).astype(int) for column in _SIZE)
    names = [tomogram_base_name(str(name)) for name in table["rlnTomoName"]]
    return {name: (int(c), int(b), int(a)) for name, a, b, c in zip(names, x, y, z, strict=True)}
