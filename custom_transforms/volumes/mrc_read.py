"""Open MRC files: find the byte order, refuse what is no volume, map the data copy-on-write."""

from __future__ import annotations

import codecs
import warnings
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from mrcfile.constants import MAP_ID
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import byte_order_from_machine_stamp, dtype_from_mode, pretty_machine_stamp

from custom_transforms.files.limits import check_memory
from custom_transforms.volumes.checks import Notes, RawVolume, check_shape
from custom_transforms.volumes.compressed import (
    check_damage,
    check_end,
    naming_damage,
    open_compressed,
    read_compressed,
)
from custom_transforms.volumes.slabs import slabs

__all__ = ["IMOD_STAMP", "MRC_SUFFIXES", "mrc_geometry", "read_mrc", "read_mrc_geometry"]

MRC_SUFFIXES = (".mrc", ".rec", ".map", ".mrc.gz", ".rec.gz", ".map.gz", ".mrc.bz2", ".rec.bz2", ".map.bz2")
IMOD_STAMP = 1146047817
IMOD_SIGNED = 1  # bit 0 of imodFlags: bytes are stored signed
IMOD_OFFSET = 40  # of imodStamp within the field "extra2"; imodFlags follows
MODES = {0: "int8", 1: "int16", 2: "float32", 6: "uint16", 12: "float16"}
COMPLEX_MODES = (3, 4)
LONGEST_AXIS = 100_000  # beyond this the bytes are not a header


def read_mrc(path: Path, signed: bool | None, notes: Notes) -> RawVolume:
    """Open one MRC file (also gzip or bzip2, recognised by its first bytes).

    Parameters
    ----------
    path : Path
        The file.
    signed : bool or None
        How to take the bytes of mode 0; None decides from the header.
    notes : Notes
        Takes the warnings.

    Returns
    -------
    RawVolume
        ``array`` is a copy-on-write memory map where the file is uncompressed, little-endian (as this machine) and
        has the map axes 1-2-3; a plain array otherwise. Writing to it never changes the file.

    Raises
    ------
    ValueError
        If the file is truncated, no MRC, complex, of an unknown mode, or no volume.
    """
    with _open(path) as stream:
        try:
            header, order = _read_header(path, stream, notes)
        except ValueError:
            if not isinstance(stream, BufferedReader):
                check_damage(path, stream)  # of bzip2 one bit spoils the header, too
            raise
        dtype = _data_dtype(path, header, order)
        shape = (int(header["nz"]), int(header["ny"]), int(header["nx"]))
        check_shape(path, shape)
        _check_finite(path, header)
        volume = _read_data(path, stream, dtype, shape, 1024 + max(0, int(header["nsymbt"])), notes)
    if not dtype.isnative:
        check_memory(path, shape, dtype)
        # not of the map: what `astype` makes of one calls itself a map, too
        volume = np.asarray(volume).astype(dtype.newbyteorder("="))
    volume = _resolve_sign(path, volume, header, signed, notes)
    return _in_zyx_order(path, volume, header, notes)


def read_mrc_geometry(path: Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """Read what `read_mrc` will give, from the header alone.

    Returns
    -------
    shape : tuple of 3 ints
        Z, Y, X, whatever the map axes.
    voxel_size_zyx : ndarray, shape (3,)
        Å; 0 where it is not known.

    Raises
    ------
    OSError, ValueError
        If there is no header, or it cannot be true; nothing is warned of.
    """
    with _open(path) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # they come when the volume is read
        header, _ = _read_header(path, stream, Notes())
    sides = [int(header[name]) for name in ("nz", "ny", "nx")]
    z, y, x = (sides[axis] for axis in _zyx_axes(_map_axes(path, header)))
    return (z, y, x), np.nan_to_num(_voxel_size_zyx(header), posinf=0.0, neginf=0.0)


def _open(path: Path) -> BinaryIO:
    with open(path, "rb") as stream:
        is_plain = stream.read(212)[208:] == MAP_ID
    return (None if is_plain else open_compressed(path)) or open(path, "rb")


def _read_header(path: Path, stream: BinaryIO, notes: Notes) -> tuple[np.ndarray, str]:
    with naming_damage(path):
        raw = stream.read(HEADER_DTYPE.itemsize)
    text = _as_text(raw)
    if text:
        raise ValueError(
            f'{path}: expected an MRC volume, got a text file (it begins "{text[:40].splitlines()[0]}"). '
            "Give the tomogram; a download may have saved an error page instead."
        )
    if len(raw) < HEADER_DTYPE.itemsize:
        raise ValueError(
            f"{path}: expected an MRC volume, got a file of {len(raw):,} bytes, shorter than an MRC header "
            "(1,024 bytes). Copy it again from its source."
        )
    orders = {order: np.frombuffer(raw, dtype=HEADER_DTYPE.newbyteorder(order))[0] for order in "<>"}
    plausible = [order for order, header in orders.items() if _is_plausible(header)]
    if bytes(orders["<"]["map"])[:3] != MAP_ID[:3]:
        if not any(int(orders[order]["mode"]) in MODES and _has_size(path, orders[order]) for order in plausible):
            raise ValueError(
                f'{path}: expected an MRC volume, but its header has no "MAP" mark and its sizes make no sense. '
                "Give a tomogram in MRC format, or name the file by its true format."
            )
        notes.warn(f'{path}: the header has no "MAP" mark (old MRC?); its size fits, so it was read all the same.')
    order = _byte_order(path, orders["<"]["machst"], plausible, notes)
    return orders[order], order


def _as_text(raw: bytes) -> str:
    """Give the bytes as text without leading blanks, or "" if they are none; a last letter may be cut in two."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(raw)
    except UnicodeDecodeError:
        return ""
    return text.lstrip() if all(letter.isprintable() or letter in "\t\r\n\f" for letter in text) else ""


def _is_plausible(header: np.ndarray) -> bool:
    sizes = [int(header[name]) for name in ("nx", "ny", "nz")]
    return all(0 < size <= LONGEST_AXIS for size in sizes)


def _has_size(path: Path, header: np.ndarray) -> bool:
    voxels = int(header["nx"]) * int(header["ny"]) * int(header["nz"])
    expected = 1024 + int(header["nsymbt"]) + voxels * dtype_from_mode(int(header["mode"])).itemsize
    return path.stat().st_size == expected


def _byte_order(path: Path, stamp: np.ndarray, plausible: list[str], notes: Notes) -> str:
    if not plausible:
        raise ValueError(
            f"{path}: expected an MRC volume, but the sizes in its header make no sense. "
            "The file is damaged: copy it again from its source."
        )
    try:
        order = byte_order_from_machine_stamp(stamp)
    except ValueError:
        order = plausible[0]
        name = "little" if order == "<" else "big"
        notes.warn(
            f"{path}: the header has no machine stamp ({pretty_machine_stamp(stamp)}); its sizes make sense as "
            f"{name}-endian, so it was read like that."
        )
    if order not in plausible:
        notes.warn(f"{path}: the machine stamp tells the wrong byte order; the other one makes sense and was used.")
        order = plausible[0]
    return order


def _data_dtype(path: Path, header: np.ndarray, order: str) -> np.dtype:
    mode = int(header["mode"])
    if mode in COMPLEX_MODES:
        raise ValueError(
            f"{path}: expected real values (MRC modes 0, 1, 2, 6, 12), got mode {mode}, complex numbers. "
            "This is a Fourier transform: give the tomogram in real space."
        )
    if mode not in MODES:
        raise ValueError(
            f"{path}: expected MRC mode 0, 1, 2, 6 or 12, got unknown mode {mode}. "
            "Convert it, for example with IMOD: newstack -mode 2 input.mrc output.mrc"
        )
    return np.dtype(f"{order}{np.dtype(MODES[mode]).str[1:]}")


def _read_data(
    path: Path, stream: BinaryIO, dtype: np.dtype, shape: tuple[int, int, int], offset: int, notes: Notes
) -> np.ndarray:
    expected = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if not isinstance(stream, BufferedReader):
        return _decompress(path, stream, dtype, shape, offset, notes)
    present = path.stat().st_size - offset
    extended = offset - HEADER_DTYPE.itemsize
    if present < expected and extended and present + extended == expected:
        raise ValueError(
            f"{path}: the header declares an extended header of {extended:,} bytes (nsymbt), which is not there: the "
            f"file holds the header and {expected:,} bytes of voxels, no more. Set nsymbt to 0, or write it again."
        )
    if present < 0:
        raise ValueError(
            f"{path}: the header declares an extended header of {extended:,} bytes (nsymbt), but the file ends before "
            "it does. Copy or reconstruct it again; if nsymbt is wrong, set it to 0."
        )
    if present < expected:
        raise _truncated(path, shape, dtype, expected, present)
    if present > expected:
        notes.warn(f"{path}: the file is {present - expected:,} bytes longer than its header says; they were ignored.")
    # mode "r" would crash the process at the first in-place operation of a tensor that shares this memory
    return np.memmap(path, dtype=dtype, mode="c", offset=offset, shape=shape)


def _decompress(
    path: Path, stream: BinaryIO, dtype: np.dtype, shape: tuple[int, int, int], offset: int, notes: Notes
) -> np.ndarray:
    try:
        volume = read_compressed(path, stream, dtype, shape, offset - HEADER_DTYPE.itemsize)
    except EOFError as error:
        expected = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        raise _truncated(path, shape, dtype, expected, error.args[0]) from error
    if rest := check_end(path, stream):
        notes.warn(f"{path}: it holds {rest:,} bytes more than its header says; they were ignored.")
    return volume


def _truncated(path: Path, shape: tuple[int, ...], dtype: np.dtype, expected: int, present: int) -> ValueError:
    told = " x ".join(str(n) for n in shape)
    return ValueError(
        f"{path}: the file is truncated: expected {expected:,} bytes for {told} voxels (Z, Y, X) of {dtype.name}, "
        f"got {present:,}. Copy or reconstruct it again."
    )


def _resolve_sign(path: Path, volume: np.ndarray, header: np.ndarray, signed: bool | None, notes: Notes) -> np.ndarray:
    if volume.dtype != np.int8:
        return volume
    if signed is not None:
        return volume if signed else volume.view(np.uint8)
    stamp, flags = _imod_fields(header)
    lowest, highest = float(header["dmin"]), float(header["dmax"])
    told = lowest < highest  # undetermined statistics are written as min > max
    if (stamp == IMOD_STAMP and flags & IMOD_SIGNED) or (told and lowest < 0):
        return volume
    if all(slab.min() >= 0 for slab in slabs(volume)):
        return volume  # every byte is below 128: both readings agree
    unsigned = (told and highest > 127) or (not told and stamp == IMOD_STAMP)
    taken, other = ("unsigned", "true") if unsigned else ("signed", "false")
    notes.warn(
        f"{path}: the header does not tell whether its bytes (mode 0) are signed; taken as {taken}. "
        f"If the picture looks wrong, give --signed {other}."
    )
    return volume.view(np.uint8) if unsigned else volume


def _order(header: np.ndarray) -> str:
    return header.dtype["nx"].str[0]  # of the field: a single value is always in this machine's order


def _imod_fields(header: np.ndarray) -> tuple[int, int]:
    extra = header["extra2"].tobytes()
    stamp, flags = np.frombuffer(extra, dtype=f"{_order(header)}i4", count=2, offset=IMOD_OFFSET)
    return int(stamp), int(flags)


def _in_zyx_order(path: Path, volume: np.ndarray, header: np.ndarray, notes: Notes) -> RawVolume:
    """Transpose to (Z, Y, X) by the map axes; the header's cell, grid and origin are in x, y, z whatever those are."""
    axes = _map_axes(path, header)
    nstart_crs = [int(header[name]) for name in ("nxstart", "nystart", "nzstart")]
    nstart_xyz = [nstart_crs[axes.index(axis)] for axis in (1, 2, 3)]
    if axes != [1, 2, 3]:
        check_memory(path, volume.shape, volume.dtype)
        volume = np.ascontiguousarray(volume.transpose(_zyx_axes(axes)))
        notes.warn(
            f"{path}: the map axes (columns, rows, sections) are {axes}, not [1, 2, 3]; the volume was transposed "
            "to (Z, Y, X), and what is written has that order."
        )
    stamp, flags = _imod_fields(header)
    fields: dict[str, Any] = {
        "format": "mrc",
        "mode": int(header["mode"]),
        "nstart_xyz": np.array(nstart_xyz, dtype=np.int64),
        "ispg": int(header["ispg"]),
        "map_axes": np.array(axes),
        "labels": _label_text(header),
        "imod_stamp": stamp,
        "imod_flags": flags if stamp == IMOD_STAMP else 0,
        "byte_order": "little" if _order(header) == "<" else "big",
        "machine_stamp": pretty_machine_stamp(header["machst"]),
    }
    return RawVolume(
        array=volume,
        voxel_size_zyx=_voxel_size_zyx(header),
        origin_xyz=np.array([float(header["origin"][name]) for name in "xyz"]),
        header=fields,
    )


def _check_finite(path: Path, header: np.ndarray) -> None:
    """Refuse a header whose cell or origin are no numbers: positions are made of them; statistics are not used."""
    for name in ("cella", "cellb", "origin"):
        values = [float(header[name][axis]) for axis in header[name].dtype.names or ()]
        if not np.isfinite(values).all():
            raise ValueError(
                f"{path}: expected finite numbers in the header, got {name} {', '.join(f'{v:g}' for v in values)}. "
                "Set it (0, 0, 0 for an origin that is not known), or write the file again."
            )


def _map_axes(path: Path, header: np.ndarray) -> list[int]:
    """Which of x, y, z (1, 2, 3) the columns, rows and sections are."""
    axes = [int(header[name]) for name in ("mapc", "mapr", "maps")]
    if axes == [0, 0, 0]:
        return [1, 2, 3]  # never written: old files
    if sorted(axes) != [1, 2, 3]:
        raise ValueError(
            f"{path}: expected map axes that are an order of 1, 2, 3, got {axes}. The header is damaged: "
            "set its mapc, mapr, maps fields (1, 2, 3 for a tomogram)."
        )
    return axes


def _zyx_axes(map_axes: list[int]) -> list[int]:
    """The axes of the array (sections, rows, columns) that are Z, Y and X."""
    return [2 - map_axes.index(axis) for axis in (3, 2, 1)]


def _voxel_size_zyx(header: np.ndarray) -> np.ndarray:
    sizes = []
    for axis in "zyx":
        cells = int(header[f"m{axis}"])
        sizes.append(float(header["cella"][axis]) / cells if cells > 0 else 0.0)
    # the cell is stored in single precision: 13.48 comes back as 13.480000104
    return np.round(np.array(sizes), 5)


def _label_text(header: np.ndarray) -> str:
    count = min(max(int(header["nlabl"]), 0), 10)
    lines = [bytes(line).decode("ascii", errors="replace").strip(" \0") for line in header["label"][:count]]
    return "\n".join(lines)


def mrc_geometry(path: str | Path) -> tuple[tuple[int, int, int], np.ndarray] | None:
    """Shape and voxel size (Å; 0 if it is not known), both (Z, Y, X), of an MRC file's header, also compressed.

    None for other files and strange headers: the reader tells the user what is wrong with them.
    """
    if not str(path).lower().endswith(MRC_SUFFIXES):
        return None
    try:
        return read_mrc_geometry(Path(path))
    except (OSError, ValueError):
        return None
