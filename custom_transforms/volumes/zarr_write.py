"""Write label volumes as multiscale OME-Zarr, which napari and Neuroglancer open."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from custom_transforms.files.whole_files import sweep, temporary_tag
from custom_transforms.units import as_voxel_size_zyx
from custom_transforms.volumes.slabs import value_range
from custom_transforms.volumes.zarr_read import import_zarr

__all__ = ["atomic_folder", "write_labels_zarr"]

CHUNK = 64  # voxels a side: a slice through a large volume touches few of them


def write_labels_zarr(
    path: str | os.PathLike,
    labels: np.ndarray,
    voxel_size_zyx: float | tuple[float, float, float] | np.ndarray,
    name: str = "instances",
) -> np.dtype:
    """Write labels as an OME-Zarr label image, atomically; each level keeps every second voxel of the finer one.

    OME-NGFF 0.4 (Zarr format 2), which more programs read than 0.5; an older image is replaced.

    Parameters
    ----------
    path : path
        Folder to make; its name should end in ``.zarr``.
    labels : ndarray, shape (Z, Y, X), integer
        -1 ignore, 0 background, 1..n particles. Untouched.
    voxel_size_zyx : float or sequence of 3 floats
        Å along Z, Y, X.
    name : str
        Of the image in its metadata.

    Returns
    -------
    dtype
        The type in the file: uint16 or uint32, what holds every label; with -1, int16 or int32.

    Raises
    ------
    ImportError
        If the optional package zarr is not installed.
    ValueError
        If the labels are no integer volume or below -1, or the target is a file.
    """
    labels = np.asarray(labels)
    if labels.ndim != 3 or labels.size == 0 or labels.dtype.kind not in "iub":
        raise ValueError(
            f"{path}: expected an integer label volume (Z, Y, X), got {labels.dtype.name} of shape {labels.shape}."
        )
    dtype = _label_dtype(path, *value_range(labels))
    count = 1 + max(0, int(np.ceil(np.log2(max(labels.shape) / CHUNK))))  # until the longest side fits one chunk
    zarr = import_zarr()
    with atomic_folder(path) as temporary:
        group = zarr.open_group(str(temporary), mode="w", zarr_format=2)
        level = labels.astype(dtype, copy=False)
        for number in range(count):
            _store(group, str(number), level)
            level = np.ascontiguousarray(level[::2, ::2, ::2])
        group.attrs.update(_metadata(name, count, as_voxel_size_zyx(voxel_size_zyx)))
    return dtype


@contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; it takes that name when the block ends well, and goes otherwise.

    Raises
    ------
    ValueError
        If the target is a file.
    """
    target = Path(path)
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target}: expected a folder to replace, got a file. Give another name.")
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent)
    temporary, older = (target.with_name(f".{temporary_tag()}.{target.name}") for _ in range(2))
    temporary.mkdir()
    try:
        yield temporary
        if target.exists():
            os.replace(target, older)  # a folder that is not empty cannot be replaced in one step
        try:
            os.replace(temporary, target)
        except BaseException:
            if older.exists():
                os.replace(older, target)
            raise
    finally:
        for folder in (temporary, older):
            shutil.rmtree(folder, ignore_errors=True)


def _label_dtype(path: str | os.PathLike, lowest: float, highest: float) -> np.dtype:
    limit = np.iinfo(np.int32).max
    if lowest < -1 or highest > limit:
        raise ValueError(f"{path}: expected labels -1 (ignore), 0 and 1 to {limit:,}, got {lowest:,} to {highest:,}.")
    small, large = (np.uint16, np.uint32) if lowest >= 0 else (np.int16, np.int32)
    return np.dtype(small if highest <= np.iinfo(small).max else large)


def _store(group: Any, name: str, level: np.ndarray) -> None:
    import numcodecs  # a requirement of zarr

    group.create_array(
        name,
        shape=level.shape,
        dtype=level.dtype,
        chunks=tuple(min(CHUNK, side) for side in level.shape),
        fill_value=0,
        compressors=numcodecs.Blosc(cname="zstd", clevel=5, shuffle=numcodecs.Blosc.BITSHUFFLE),
        chunk_key_encoding={"name": "v2", "separator": "/"},
        config={"write_empty_chunks": True},  # so that a lost one shows
    )[:] = level


def _metadata(name: str, count: int, size_zyx: np.ndarray) -> dict[str, Any]:
    scales = [{"type": "scale", "scale": (size_zyx * 2**number).tolist()} for number in range(count)]
    multiscale = {
        "version": "0.4",
        "name": name,
        "axes": [{"name": axis, "type": "space", "unit": "angstrom"} for axis in "zyx"],
        "datasets": [{"path": str(n), "coordinateTransformations": [scale]} for n, scale in enumerate(scales)],
        "type": "nearest",
    }
    return {"multiscales": [multiscale], "image-label": {"version": "0.4"}}
