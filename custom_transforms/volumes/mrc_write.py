"""Write MRC files: right types, right header, whole or not at all."""

from __future__ import annotations

import bz2
import gzip
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mrcfile.constants import MAP_ID, VOLUME_SPACEGROUP
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import machine_stamp_from_byte_order, mode_from_dtype

from custom_transforms.files.whole_files import atomic_path
from custom_transforms.units import as_voxel_size_zyx
from custom_transforms.volumes.mrc_read import IMOD_OFFSET, IMOD_SIGNED, IMOD_STAMP
from custom_transforms.volumes.slabs import mean_and_deviation, slabs, value_range

__all__ = ["instance_dtype", "new_header", "write_instances", "write_mrc", "write_volume"]

FLOAT32_EXACT = 2**24  # beyond, float32 skips whole numbers


def instance_dtype(highest: int, lowest: int = 0) -> np.dtype:
    """Choose the type that holds instance labels without loss in an MRC file.

    Parameters
    ----------
    highest : int
        The highest label, which is the number of particles.
    lowest : int
        0, or -1 where voxels are marked to be ignored.

    Returns
    -------
    dtype
        int16 up to 32,767, then uint16 up to 65,535 unless there is a -1, then float32.

    Raises
    ------
    ValueError
        Beyond 2^24 labels, or below -1.

    Examples
    --------
    >>> [instance_dtype(n).name for n in (0, 32_767, 32_768, 65_535, 65_536)]
    ['int16', 'int16', 'uint16', 'uint16', 'float32']
    """
    if lowest < -1 or highest > FLOAT32_EXACT:
        raise ValueError(
            f"instance labels: expected -1 (ignore), 0 (background) and 1 to {FLOAT32_EXACT:,}, got {lowest:,} to "
            f"{highest:,}. Renumber the particles from 1, or split the volume."
        )
    if highest <= np.iinfo(np.int16).max:
        return np.dtype(np.int16)
    if highest <= np.iinfo(np.uint16).max and lowest >= 0:
        return np.dtype(np.uint16)
    return np.dtype(np.float32)


def write_instances(
    path: str | os.PathLike,
    labels: Any,
    voxel_size_zyx: float | Sequence[float] | np.ndarray,
    origin_xyz: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0),
    nstart_xyz: Sequence[int] | np.ndarray = (0, 0, 0),
    labels_text: Sequence[str] = (),
    overwrite: bool = True,
    highest: int | None = None,
) -> np.dtype:
    """Write instance labels in the smallest MRC type that keeps every label (`instance_dtype`).

    Parameters
    ----------
    labels : ndarray, shape (Z, Y, X), integer
        -1 ignore, 0 background, 1..n particles. Untouched. With ``highest`` anything that is read by slices of planes.
    highest : int, optional
        The highest label where it is known, of labels without a -1; else the volume is looked through for it.
    path, voxel_size_zyx, origin_xyz, nstart_xyz, labels_text, overwrite
        As in `write_mrc`.

    Returns
    -------
    dtype
        The type in the file.

    Raises
    ------
    ValueError
        If ``labels`` is not of an integer dtype, or beyond what `instance_dtype` takes.
    """
    lowest = 0
    if highest is None:
        labels = np.asarray(labels)
        if labels.dtype.kind not in "iub":
            raise ValueError(
                f"instance labels: expected an integer array, got {labels.dtype.name}. "
                "Round and convert it to int32 first."
            )
        lowest, highest = map(int, value_range(labels)) if labels.size else (0, 0)
    dtype = instance_dtype(highest, lowest)
    _check_shape(path, labels)
    header = new_header(labels.shape, dtype, voxel_size_zyx, origin_xyz, nstart_xyz, labels_text)
    write_volume(path, labels, dtype, header, overwrite)
    return dtype


def write_mrc(
    path: str | os.PathLike,
    volume: np.ndarray,
    voxel_size_zyx: float | Sequence[float] | np.ndarray,
    origin_xyz: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0),
    nstart_xyz: Sequence[int] | np.ndarray = (0, 0, 0),
    labels_text: Sequence[str] = (),
    overwrite: bool = True,
    dtype: Any = None,
) -> None:
    """Write a volume as an MRC file, atomically; ``.gz`` and ``.bz2`` names are compressed.

    Parameters
    ----------
    path : path
        Target; parent folders are made.
    volume : ndarray, shape (Z, Y, X)
        Any real dtype. Untouched.
    voxel_size_zyx : float or sequence of 3 floats
        Å along Z, Y, X.
    origin_xyz : sequence of 3 floats
        Å, the header's origin, in x, y, z.
    nstart_xyz : sequence of 3 ints
        The header's nxstart, nystart, nzstart.
    labels_text : sequence of str
        Up to 10 lines of 80 ASCII characters for the header; longer ones are cut.
    overwrite : bool
        False refuses an existing target.
    dtype : dtype, optional
        int8, int16, uint16, float32 or float16 (mode 12). By default bool becomes int8, uint8 becomes uint16,
        floats become float32, and wide integers the smallest type that holds their range. For an integer type,
        floats are rounded.

    Raises
    ------
    ValueError
        If the volume is not 3D or empty, a value does not fit the type, or the target exists.
    """
    volume = np.asarray(volume)
    _check_shape(path, volume)
    stored = _stored_dtype(path, volume, dtype)
    if stored.kind in "iu" and volume.dtype.kind == "f":
        volume = np.rint(volume)
    header = new_header(volume.shape, stored, voxel_size_zyx, origin_xyz, nstart_xyz, labels_text)
    write_volume(path, volume, stored, header, overwrite)


def _check_shape(path: str | os.PathLike, volume: np.ndarray) -> None:
    if volume.ndim != 3 or volume.size == 0:
        raise ValueError(f"{path}: expected a volume (Z, Y, X) to write, got shape {volume.shape}.")


def write_volume(
    path: str | os.PathLike, volume: Any, stored: np.dtype, header: np.ndarray, overwrite: bool = True
) -> None:
    """Write a volume under a header of `new_header`, slab by slab; its statistics go into the header.

    Parameters
    ----------
    volume : array-like, shape (Z, Y, X)
        An array, or anything of that shape that is read by slices of planes.
    stored : dtype
        The type in the file; every value must fit.
    header : ndarray, scalar of `HEADER_DTYPE`
        Changed in place.
    overwrite : bool
        False refuses an existing file.
    """
    header["dmin"], header["dmax"] = np.array(value_range(volume)).astype(stored)
    header["dmean"], header["rms"] = mean_and_deviation(volume)
    with atomic_path(path, overwrite) as temporary, _compressed_or_plain(temporary) as stream:
        stream.write(header.tobytes())
        for slab in slabs(volume):
            stream.write(np.ascontiguousarray(slab, dtype=stored).data)


@contextmanager
def _compressed_or_plain(path: Path) -> Iterator[Any]:
    with open(path, "wb") as plain:
        if path.suffix == ".gz":
            # neither name nor time inside: equal volumes give equal bytes
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=plain, mtime=0) as stream:
                yield stream
        elif path.suffix == ".bz2":
            with bz2.BZ2File(plain, "wb") as stream:
                yield stream
        else:
            yield plain


def _stored_dtype(path: str | os.PathLike, volume: np.ndarray, dtype: Any) -> np.dtype:
    if dtype is None:
        stored = _default_dtype(path, volume)
    else:
        stored = np.dtype(dtype)
        if stored.name not in ("int8", "int16", "uint16", "float32", "float16"):
            raise ValueError(
                f"{path}: expected int8, int16, uint16, float32 or float16 for an MRC file, got {stored.name}."
            )
    if stored == volume.dtype or volume.dtype.kind == "b" or stored == np.float32:
        return stored
    limits = np.finfo(stored) if stored.kind == "f" else np.iinfo(stored)
    lowest, highest = value_range(volume)
    if not (lowest >= float(limits.min) and highest <= float(limits.max)):
        raise ValueError(
            f"{path}: values from {lowest:g} to {highest:g} do not fit {stored.name} "
            f"({limits.min:g} to {limits.max:g}). Write float32."
        )
    return stored


def _default_dtype(path: str | os.PathLike, volume: np.ndarray) -> np.dtype:
    kind, name = volume.dtype.kind, volume.dtype.name
    if kind == "b":
        return np.dtype(np.int8)
    if kind == "f":
        return np.dtype(np.float32)
    if name in ("int8", "int16", "uint16"):
        return volume.dtype.newbyteorder("=")
    if name == "uint8":
        return np.dtype(np.uint16)
    if kind not in "iu":
        raise ValueError(f"{path}: expected real numbers to write, got {name}.")
    lowest, highest = value_range(volume)
    for candidate in (np.int16, np.uint16):
        if np.iinfo(candidate).min <= lowest and highest <= np.iinfo(candidate).max:
            return np.dtype(candidate)
    if max(-lowest, highest) > FLOAT32_EXACT:
        raise ValueError(
            f"{path}: integers from {lowest:,} to {highest:,} have no exact MRC type (float32 is exact to "
            f"{FLOAT32_EXACT:,}). Renumber them, or convert to float first."
        )
    return np.dtype(np.float32)


def new_header(
    shape_zyx: Sequence[int],
    stored: np.dtype,
    voxel_size_zyx: Any,
    origin_xyz: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0),
    nstart_xyz: Sequence[int] | np.ndarray = (0, 0, 0),
    labels_text: Sequence[str] = (),
) -> np.ndarray:
    """Make the MRC header of a volume, without the statistics of its values; arguments as in `write_mrc`."""
    header = np.zeros((), dtype=HEADER_DTYPE)
    size_xyz = as_voxel_size_zyx(voxel_size_zyx)[::-1]
    for index, axis in enumerate("xyz"):
        cells = int(shape_zyx[2 - index])
        header[f"n{axis}"] = header[f"m{axis}"] = cells
        header[f"n{axis}start"] = int(nstart_xyz[index])
        header["cella"][axis] = size_xyz[index] * cells
        header["origin"][axis] = float(origin_xyz[index])
    header["cellb"] = (90.0, 90.0, 90.0)
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["mode"] = mode_from_dtype(stored)
    header["ispg"], header["nversion"], header["map"] = VOLUME_SPACEGROUP, 20141, MAP_ID
    header["machst"] = np.frombuffer(bytes(machine_stamp_from_byte_order("=")), dtype=np.uint8)
    lines = [line.encode("ascii", errors="replace")[:80] for text in labels_text for line in str(text).splitlines()]
    header["nlabl"] = len(lines[:10])
    header["label"][: len(lines[:10])] = lines[:10]
    if stored == np.int8:  # IMOD takes bytes for unsigned unless told
        extra = bytearray(header["extra2"].tobytes())
        extra[IMOD_OFFSET : IMOD_OFFSET + 8] = np.array([IMOD_STAMP, IMOD_SIGNED], dtype=np.int32).tobytes()
        header["extra2"] = np.void(bytes(extra))
    return header
