"""Arrays that a notebook holds, as volumes and as the files that everything else reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from custom_transforms.volumes.mrc_write import write_instances, write_mrc

__all__ = ["as_file", "as_volume", "is_path"]


def is_path(volume: Any) -> bool:
    """Tell a path (or the address of a copick project) from an array."""
    return isinstance(volume, (str, os.PathLike))


def as_volume(volume: Any, name: str) -> np.ndarray:
    """An array or tensor (Z, Y, X), or with a channel or batch axis of length 1 before these, as ndarray (Z, Y, X).

    Raises
    ------
    ValueError
        If it has another shape.
    """
    if hasattr(volume, "detach"):
        volume = volume.detach().cpu()
    array = np.asarray(volume)
    while array.ndim > 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3:
        raise ValueError(f"{name}: expected a volume (Z, Y, X), got an array of shape {array.shape}.")
    return array


def as_file(volume: Any, path: Path, name: str, voxel_size: Any, labels: bool = False) -> Path:
    """Where a volume can be read: its path, or ``path``, which an array is written to as MRC.

    Parameters
    ----------
    volume : path or array, shape (Z, Y, X)
    path : Path
        Used for an array alone.
    name : str
        Of the argument, for errors.
    voxel_size : float or sequence of 3 floats (Z, Y, X), or None
        Å; an array needs it.
    labels : bool
        Whether the volume holds instance labels.

    Raises
    ------
    ValueError
        If an array comes without a voxel size.
    """
    if is_path(volume):
        return Path(volume).expanduser().absolute()
    array = as_volume(volume, name)
    if voxel_size is None:
        raise ValueError(f"{name}: an array does not say how large its voxels are. Give voxel_size (Å).")
    if labels:
        write_instances(path, array, voxel_size)
    else:
        write_mrc(path, array, voxel_size, dtype=np.float32)
    return path
