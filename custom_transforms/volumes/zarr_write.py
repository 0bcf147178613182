"""Write label volumes as multiscale OME-Zarr, which napari and Neuroglancer open."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from custom_transforms.files.whole_files import sweep, temporary_tag
from custom_transforms.units import as_voxel_size_zyx
from custom_transforms.volumes.parallel import run_parallel, slab_bounds
from custom_transforms.volumes.slabs import value_range
from custom_transforms.volumes.zarr_read import import_zarr

__all__ = ["atomic_folder", "halve_labels", "write_labels_zarr"]

CHUNK = 64  # voxels a side: a slice through a large volume touches few of them
DOWNSAMPLING = ("mode", "nearest")
NGFF_VERSIONS = {"0.4": 2, "0.5": 3}  # of the Zarr format below


def write_labels_zarr(
    path: str | os.PathLike,
    labels: np.ndarray,
    voxel_size_zyx: float | tuple[float, float, float] | np.ndarray,
    origin_xyz: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0),
    name: str = "instances",
    levels: int | None = None,
    downsampling: str = "mode",
    version: str = "0.4",
    overwrite: bool = True,
) -> np.dtype:
    """Write labels as an OME-Zarr label image whose levels halve the voxels along each axis, atomically.

    Parameters
    ----------
    path : path
        Folder to make; its name should end in ``.zarr``.
    labels : ndarray, shape (Z, Y, X), integer
        -1 ignore, 0 background, 1..n particles. Untouched.
    voxel_size_zyx : float or sequence of 3 floats
        Å along Z, Y, X.
    origin_xyz : sequence of 3 floats
        Å, position of the first voxel; a translation in the metadata.
    name : str
        Of the image in its metadata.
    levels : int, optional
        How many; by default until the longest side fits one chunk of 64 voxels.
    downsampling : {"mode", "nearest"}
        The most frequent label of each 2 x 2 x 2 block (`halve_labels`), or its first voxel.
    version : {"0.4", "0.5"}
        Of OME-NGFF. More programs read 0.4 (Zarr format 2); 0.5 is Zarr format 3.
    overwrite : bool
        False refuses an existing target.

    Returns
    -------
    dtype
        The type in the file: uint16 or uint32, what holds every label; with -1, int16 or int32.

    Raises
    ------
    ImportError
        If the optional package zarr is not installed.
    ValueError
        If the labels are no integer volume or below -1, an option is unknown, or the target exists.
    """
    labels = np.asarray(labels)
    if labels.ndim != 3 or labels.size == 0 or labels.dtype.kind not in "iub":
        raise ValueError(
            f"{path}: expected an integer label volume (Z, Y, X), got {labels.dtype.name} of shape {labels.shape}."
        )
    if downsampling not in DOWNSAMPLING or version not in NGFF_VERSIONS:
        raise ValueError(
            f"{path}: expected downsampling {' or '.join(DOWNSAMPLING)} and version {' or '.join(NGFF_VERSIONS)}, got "
            f"{downsampling!r} and {version!r}."
        )
    count = levels if levels is not None else 1 + max(0, int(np.ceil(np.log2(max(labels.shape) / CHUNK))))
    if count < 1:
        raise ValueError(f"{path}: expected at least 1 level, got {levels}.")
    dtype = _label_dtype(path, *value_range(labels))
    size_zyx, origin = as_voxel_size_zyx(voxel_size_zyx), np.asarray(origin_xyz, dtype=np.float64)[::-1]
    zarr = import_zarr()
    with atomic_folder(path, overwrite) as temporary:
        group = zarr.open_group(str(temporary), mode="w", zarr_format=NGFF_VERSIONS[version])
        level = labels.astype(dtype, copy=False)
        for number in range(count):
            if number:
                level = halve_labels(level) if downsampling == "mode" else np.ascontiguousarray(level[::2, ::2, ::2])
            _store(group, str(number), level, version)
        group.attrs.update(_metadata(name, count, size_zyx, origin, downsampling, version))
    return dtype


def halve_labels(labels: np.ndarray) -> np.ndarray:
    """Halve a label volume: each 2 x 2 x 2 block becomes its most frequent label.

    Of labels that occur equally often the highest is taken, so that thin particles stay visible. Blocks at an odd
    end hold fewer voxels, and only those count.

    Parameters
    ----------
    labels : ndarray, shape (Z, Y, X), integer
        Within the range of int32.

    Returns
    -------
    ndarray, shape (ceil(Z / 2), ceil(Y / 2), ceil(X / 2))
        Same dtype.

    Examples
    --------
    >>> halve_labels(np.array([[[1, 2, 2], [2, 0, 5]]]))
    array([[[2, 5]]])
    """
    halved = np.empty([-(-side // 2) for side in labels.shape], dtype=labels.dtype)

    def halve_slab(first: int, last: int) -> None:
        # one type for the compiled part: each takes seconds to compile
        part = np.empty((last - first, *halved.shape[1:]), dtype=np.int32)
        _halve(np.ascontiguousarray(labels[2 * first : 2 * last], dtype=np.int32), part)
        halved[first:last] = part

    run_parallel(halve_slab, slab_bounds(len(halved)))
    return halved


@njit(nogil=True, cache=True)
def _halve(labels, halved):
    depth, height, width = labels.shape
    block = np.empty(8, np.int32)
    for z in range(halved.shape[0]):
        for y in range(halved.shape[1]):
            for x in range(halved.shape[2]):
                count = 0
                uniform = True
                for k in range(2 * z, min(2 * z + 2, depth)):
                    for j in range(2 * y, min(2 * y + 2, height)):
                        for i in range(2 * x, min(2 * x + 2, width)):
                            block[count] = labels[k, j, i]
                            uniform &= block[count] == block[0]
                            count += 1
                best, most = block[0], 0
                if not uniform:
                    for a in range(count):
                        same = 0
                        for b in range(count):
                            same += block[b] == block[a]
                        if same > most or (same == most and block[a] > best):
                            best, most = block[a], same
                halved[z, y, x] = best


@contextmanager
def atomic_folder(path: str | os.PathLike, overwrite: bool = True) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; it takes that name when the block ends well, and goes otherwise.

    Raises
    ------
    ValueError
        If the target exists and ``overwrite`` is False, or it is a file.
    """
    target = Path(path)
    if target.exists() and (not overwrite or not target.is_dir()):
        raise ValueError(f"{target}: exists already. Give another name, or --overwrite to replace it.")
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


def _store(group: Any, name: str, level: np.ndarray, version: str) -> None:
    import numcodecs  # a requirement of zarr

    zarr = import_zarr()
    if version == "0.4":
        options: dict[str, Any] = {
            "compressors": numcodecs.Blosc(cname="zstd", clevel=5, shuffle=numcodecs.Blosc.BITSHUFFLE),
            "chunk_key_encoding": {"name": "v2", "separator": "/"},
        }
    else:
        codec = zarr.codecs.BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle")
        options = {"compressors": codec, "dimension_names": ("z", "y", "x")}
    chunks = tuple(min(CHUNK, side) for side in level.shape)
    options["config"] = {"write_empty_chunks": True}  # so that a lost one shows
    array = group.create_array(name, shape=level.shape, dtype=level.dtype, chunks=chunks, fill_value=0, **options)
    array[:] = level


def _metadata(
    name: str, count: int, size_zyx: np.ndarray, origin_zyx: np.ndarray, downsampling: str, version: str
) -> dict[str, Any]:
    datasets = []
    for number in range(count):
        # the middle of a block of 2^n voxels is (2^n - 1) / 2 voxels from the middle of its first one
        middle = (2**number - 1) / 2 * size_zyx if downsampling == "mode" else np.zeros(3)
        transforms = [
            {"type": "scale", "scale": (size_zyx * 2**number).tolist()},
            {"type": "translation", "translation": (origin_zyx + middle).tolist()},
        ]
        datasets.append({"path": str(number), "coordinateTransformations": transforms})
    multiscale = {
        "name": name,
        "axes": [{"name": axis, "type": "space", "unit": "angstrom"} for axis in "zyx"],
        "datasets": datasets,
        "type": downsampling,
    }
    if version == "0.4":
        return {"multiscales": [{"version": version, **multiscale}], "image-label": {"version": version}}
    return {"ome": {"version": version, "multiscales": [multiscale], "image-label": {}}}
