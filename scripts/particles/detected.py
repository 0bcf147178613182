"""The particle lists of a detection, from its table."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from custom_transforms.files.names import tomogram_base_name
from custom_transforms.units import voxel_zyx_to_angstrom_xyz
from scripts.particles.csv_table import table_text
from scripts.particles.particle_list import ParticleList
from scripts.particles.registry import write_particles
from scripts.particles.shared.context import ParticleListWarning, TomogramContext
from scripts.particles.shared.format import write_text

__all__ = ["write_lists"]


def write_lists(
    files: Mapping[str, Path], name: str, table: pd.DataFrame, size_zyx: Sequence[int], voxel_size_zyx: np.ndarray
) -> ParticleList:
    """Write the table of a tomogram's particles (``csv``), and the list of the kept ones in other formats.

    Parameters
    ----------
    files : mapping of str to Path
        Format -> file; ``csv`` is the full table, with the dropped particles.
    name : str
        The tomogram's.
    table : DataFrame
    size_zyx, voxel_size_zyx : sequences of 3
        Voxels, and Å along Z, Y, X.

    Returns
    -------
    ParticleList
        The kept particles.
    """
    write_text(files["csv"], table_text(table, float_format="%.6g"))
    kept = table[table["label"] > 0]
    nz, ny, nx = size_zyx
    base = tomogram_base_name(name)
    particles = ParticleList(
        voxel_zyx_to_angstrom_xyz(kept[["z_vox", "y_vox", "x_vox"]].to_numpy(float), voxel_size_zyx),
        tomogram=base,
        class_name=kept["class"].astype(str).to_numpy() if "class" in kept else "",
        score=kept["score"].to_numpy(float),
    )
    # nothing is known of the tilt series here: export has options for its binning
    context = TomogramContext(voxel_size_zyx=voxel_size_zyx, size_zyx=(nz, ny, nx), name=base, binning=1.0)
    with warnings.catch_warnings():  # the full table, which loses nothing, lies beside it
        warnings.simplefilter("ignore", ParticleListWarning)
        for format in files:
            if format != "csv":
                write_particles(particles, files[format], format=format, context=context)
    return particles
