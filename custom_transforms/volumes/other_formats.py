"""Open volumes that are not MRC: TIFF stacks, NIfTI, EM."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import tifffile
from defusedxml.ElementTree import fromstring

from custom_transforms.files.limits import check_memory
from custom_transforms.volumes.checks import RawVolume, check_shape
from custom_transforms.volumes.compressed import check_end, open_compressed

__all__ = ["read_em", "read_nifti", "read_tiff"]

ANGSTROM_PER_UNIT = {
    "meter": 1e10, "cm": 1e8, "mm": 1e7, "micron": 1e4, "µm": 1e4, "μm": 1e4, "um": 1e4, "nm": 10.0, "Å": 1.0,
    "angstrom": 1.0, "Angstrom": 1.0, "A": 1.0, "pm": 0.01,
}  # fmt: skip
TOMOGRAM_SIZES = (0.1, 1000.0)  # Å per voxel; a NIfTI size outside was not meant in its unit
NIFTI_ERRORS = (
    nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, nib.wrapstruct.WrapStructError, EOFError,
    OSError, zlib.error,
)  # fmt: skip
EM_DTYPES = {1: "i1", 2: "i2", 4: "i4", 5: "f4", 9: "f8"}
EM_HEADER_BYTES = 512
EM_BIG_ENDIAN = (3, 5)  # machine codes: SGI, Mac


def read_tiff(path: Path) -> RawVolume:
    """Open a TIFF stack, pages along Z; a copy-on-write memory map where its pages lie together uncompressed.

    The voxel size is that of ImageJ (spacing, unit and resolution) or of OME (PhysicalSizeX/Y/Z and their units); 0
    where neither is there, and where it comes out beyond 0.1 to 1000 Å: then it was not meant in that unit.

    Raises
    ------
    ValueError
        If it is no TIFF, truncated, in colour, or no volume.
    """
    with _tiff_series(path) as (tiff, series):
        if "S" in series.axes:
            raise ValueError(
                f"{path}: expected one grey value per voxel, got a colour picture. Save the stack as greyscale."
            )
        check_shape(path, series.shape)
        array = _tiff_array(path, tiff, series)
        size, word = _tiff_voxel_size(path, tiff)
    raw = _without_size(_native_real(path, array), "tiff", "TIFF stores none" if size is None else word)
    if size is not None and ((size >= TOMOGRAM_SIZES[0]) & (size <= TOMOGRAM_SIZES[1])).all():
        raw.voxel_size_zyx = np.round(size, 5)
    return raw


def _tiff_voxel_size(path: Path, tiff: tifffile.TiffFile) -> tuple[np.ndarray | None, str]:
    """Å along Z, Y, X as ImageJ or OME write it, and the words that say so; None if a part of it is missing."""
    try:
        words = _ome_size(tiff) if tiff.ome_metadata else _imagej_size(tiff)
    except Exception as error:  # tags and XML of other programs: whatever tifffile, float or the parser raise
        raise ValueError(f"{path}: its voxel size cannot be read ({error}). Save the TIFF stack again.") from error
    if words is None:
        return None, ""
    numbers, units, program = words
    size = [number * ANGSTROM_PER_UNIT.get(unit, np.nan) for number, unit in zip(numbers, units, strict=True)]
    told = " x ".join(f"{number:g} {unit}" for number, unit in zip(numbers, units, strict=True))
    return np.array(size), f"its {program} header says {told} (Z, Y, X), which cannot be a tomogram's"


def _ome_size(tiff: tifffile.TiffFile) -> tuple[list[float], list[str], str] | None:
    found = next((e for e in fromstring(tiff.ome_metadata).iter() if e.tag.endswith("}Pixels")), None)
    if found is None or any(found.get(f"PhysicalSize{axis}") is None for axis in "ZYX"):
        return None
    numbers = [float(found.get(f"PhysicalSize{axis}")) for axis in "ZYX"]
    return numbers, [found.get(f"PhysicalSize{axis}Unit", "µm") for axis in "ZYX"], "OME"


def _imagej_size(tiff: tifffile.TiffFile) -> tuple[list[float], list[str], str] | None:
    metadata, tags = tiff.imagej_metadata or {}, tiff.pages.first.tags
    if "spacing" not in metadata or "unit" not in metadata or "XResolution" not in tags:
        return None
    (x, by_x), (y, by_y) = (tags[name].value for name in ("XResolution", "YResolution"))  # pixels per unit
    unit = str(metadata["unit"]).replace("\\u00B5", "µ").replace("\\u00C5", "Å")
    return [float(metadata["spacing"]), by_y / y, by_x / x], [unit] * 3, "ImageJ"


@contextmanager
def _tiff_series(path: Path) -> Iterator[tuple[tifffile.TiffFile, tifffile.TiffPageSeries]]:
    """The open file and its first series; whatever tifffile raises on damaged tags becomes one error of ours."""
    with ExitStack() as stack:
        try:
            tiff = stack.enter_context(tifffile.TiffFile(path))
            series = tiff.series[0]
            tuple(series.shape), series.axes, series.dataoffset, np.dtype(series.dtype)  # read on first use
        except Exception as error:  # tags are parsed on use: assertions, divisions by zero, type errors ...
            raise ValueError(
                f"{path}: expected a TIFF stack, got something else or a damaged file "
                f"({str(error) or type(error).__name__}). Copy it again."
            ) from error
        yield tiff, series


def _tiff_array(path: Path, tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> np.ndarray:
    dtype = np.dtype(tiff.byteorder + series.dtype.char)
    if series.dataoffset is None:
        check_memory(path, series.shape, dtype)
        try:
            return series.asarray()
        except Exception as error:  # every codec raises its own kinds
            raise ValueError(f"{path}: the TIFF stack cannot be read to its end ({error}). Copy it again.") from error
    expected = int(np.prod(series.shape, dtype=np.int64)) * dtype.itemsize
    present = path.stat().st_size - series.dataoffset
    if present < expected:
        raise _truncated(path, expected, present)
    return np.memmap(path, dtype=dtype, mode="c", offset=series.dataoffset, shape=series.shape)


def read_nifti(path: Path) -> RawVolume:
    """Open a NIfTI volume; its (x, y, z) is transposed to (Z, Y, X), and never flipped or reoriented.

    The voxel size is its ``pixdim`` in the unit of its header (mm, micron or m). A header without a unit tells
    nothing, and one whose size comes out beyond 0.1 to 1000 Å was not meant in that unit (many programs write Å
    and call it mm): then the result's voxel size is 0, and the user is asked instead of guessing. The origin is 0.

    Raises
    ------
    ValueError
        If it is no NIfTI, truncated, or no volume.
    """
    try:
        image: Any = nib.load(path)
        check_shape(path, image.shape)
        array = _nifti_array(path, image).T
    except NIFTI_ERRORS as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(
            f"{path}: expected a NIfTI volume, got something else or a damaged file ({reason}). Copy it again."
        ) from error
    spacing, unit = image.header.get_zooms()[:3], image.header.get_xyzt_units()[0]
    told = " x ".join(f"{size:g}" for size in spacing)
    size_zyx = np.array(spacing[::-1], dtype=np.float64) * ANGSTROM_PER_UNIT.get(unit, 0.0)
    raw = _without_size(
        _native_real(path, np.ascontiguousarray(array)), "nifti", f"its NIfTI header ({told}) has no unit"
    )
    if ((size_zyx >= TOMOGRAM_SIZES[0]) & (size_zyx <= TOMOGRAM_SIZES[1])).all():
        raw.voxel_size_zyx = np.round(size_zyx, 5)
    elif unit in ANGSTROM_PER_UNIT:
        raw.size_missing = f"its NIfTI header says {told} {unit}, which cannot be a tomogram's"
    return raw


def _nifti_array(path: Path, image: Any) -> np.ndarray:
    """The voxels (X, Y, Z): nibabel's map, which is copy-on-write, or of a compressed file what is read to its end."""
    stream, stored = open_compressed(path), image.get_data_dtype()
    scaled = (image.dataobj.slope, image.dataobj.inter) != (1, 0)
    if stream is not None or scaled:
        check_memory(path, image.shape, np.dtype(np.float64) if scaled else stored)
    if stream is None:
        return np.asanyarray(image.dataobj)
    with stream:
        array = np.asanyarray(type(image).from_stream(stream).dataobj)
        check_end(path, stream)
    return array


def read_em(path: Path) -> RawVolume:
    """Open a volume in TOM's and AV3's EM format as a copy-on-write memory map; it has no reliable voxel size.

    Raises
    ------
    ValueError
        If it is no EM file, truncated, complex, or no volume.
    """
    with open(path, "rb") as stream:
        head = stream.read(EM_HEADER_BYTES)
    order = ">" if head and head[0] in EM_BIG_ENDIAN else "<"
    kind = EM_DTYPES.get(head[3]) if len(head) == EM_HEADER_BYTES else None
    if kind is None:
        raise ValueError(
            f"{path}: expected an EM volume of bytes, integers or floats, got another format or a damaged header. "
            "Convert the tomogram to MRC."
        )
    shape_xyz = np.frombuffer(head, dtype=f"{order}i4", count=3, offset=4)
    shape = tuple(int(size) for size in shape_xyz[::-1])
    check_shape(path, shape)
    dtype = np.dtype(order + kind)
    expected = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    present = path.stat().st_size - EM_HEADER_BYTES
    if present < expected:
        raise _truncated(path, expected, present)
    array = np.memmap(path, dtype=dtype, mode="c", offset=EM_HEADER_BYTES, shape=shape)
    return _without_size(_native_real(path, array), "em", "EM files store none that can be trusted")


def _truncated(path: Path, expected: int, present: int) -> ValueError:
    return ValueError(
        f"{path}: the file is truncated: expected {expected:,} bytes of data, got {max(0, present):,}. "
        "Copy or reconstruct it again."
    )


def _native_real(path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "iufb":
        raise ValueError(f"{path}: expected real values, got {array.dtype.name}. Give the tomogram in real space.")
    if array.dtype.kind == "b":
        return array.astype(np.int8)
    if array.dtype.isnative:
        return array
    check_memory(path, array.shape, array.dtype)
    return array.astype(array.dtype.newbyteorder("="))


def _without_size(array: np.ndarray, name: str, missing: str) -> RawVolume:
    return RawVolume(array=array, voxel_size_zyx=np.zeros(3), size_missing=missing, header={"format": name})
