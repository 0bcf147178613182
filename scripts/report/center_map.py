"""The center map as the report shows it: binned, a byte a voxel, kept beside the other files of a detection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from custom_transforms.files.whole_files import atomic_path
from scripts.report.images import bin_slab, binning_candidates, to_grey

__all__ = ["NAME", "CenterMap", "read", "write"]

NAME = "{name}_center_map.npz"
MAX_VOXELS = 8_000_000


@dataclass(frozen=True)
class CenterMap:
    """Heights as 0..255; block ``i`` covers voxels ``i*b`` to ``i*b + b - 1`` of an axis with binning ``b``."""

    values: np.ndarray
    binning_zyx: tuple[int, int, int]


def write(path: Path, center_map: Any, voxel_size_zyx: np.ndarray) -> None:
    """Write a center map (Z, Y, X) of values 0..1; it is read one slab at a time, so it may be larger than memory."""
    bz, by, bx = next(binning_candidates(center_map.shape, voxel_size_zyx, MAX_VOXELS))
    starts = range(0, center_map.shape[0], bz)
    values = np.stack([to_grey(bin_slab(center_map[z : z + bz], by, bx), (0.0, 1.0)) for z in starts])
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, center_map=values, binning_zyx=(bz, by, bx))


def read(path: Path) -> CenterMap:
    """Read what `write` wrote.

    Raises
    ------
    FileNotFoundError, ValueError
        If it is missing or damaged.
    """
    try:
        with np.load(path) as file:
            z, y, x = (int(b) for b in file["binning_zyx"])
            return CenterMap(np.asarray(file["center_map"], dtype=np.uint8), (z, y, x))
    except (BadZipFile, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: expected the center map that detect wrote, but it is damaged.") from error
