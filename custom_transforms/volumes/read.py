"""Read one tomogram or label volume of any format, checked, as (Z, Y, X) array with its metadata."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from custom_transforms.files.limits import DECLARING, GIB, Declared, available_memory
from custom_transforms.volumes.checks import (
    CHECKS,
    Notes,
    RawVolume,
    build_metadata,
    check_shape,
    check_values,
    decide_voxel_size,
    warn_if_unrotated,
)
from custom_transforms.volumes.mrc_read import MRC_SUFFIXES, read_mrc
from custom_transforms.volumes.other_formats import read_em, read_nifti, read_tiff
from custom_transforms.volumes.zarr_read import is_zarr, read_zarr

__all__ = ["VOLUME_SUFFIXES", "check_job", "read_tomogram"]

TIFF_SUFFIXES = (".tif", ".tiff")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
EM_SUFFIXES = (".em",)
ZARR_SUFFIXES = (".zarr",)
VOLUME_SUFFIXES = MRC_SUFFIXES + TIFF_SUFFIXES + NIFTI_SUFFIXES + EM_SUFFIXES + ZARR_SUFFIXES  # all of read_tomogram
TILT_SERIES_SUFFIXES = (".st", ".ali", ".preali", ".mrcs")


def read_tomogram(
    path: str | os.PathLike,
    voxel_size: float | Sequence[float] | np.ndarray | None = None,
    fill_nonfinite: bool = False,
    signed: bool | None = None,
    check: str = "tomogram",
) -> tuple[np.ndarray, dict[str, Any]]:
    """Read one tomogram or label volume; the format follows from the file's name.

    Parameters
    ----------
    path : path
        .mrc .rec .map (also .gz, .bz2), .tif .tiff, .nii .nii.gz, .em, .zarr (OME-Zarr, a folder; or a level
        inside one, ``TS_01.zarr/1``)
    voxel_size : float or sequence of 3 floats (Z, Y, X), optional
        Å; replaces the file's. Required where the file has none, 0 or exactly 1.0. Of an OME-Zarr it chooses the level.
    fill_nonfinite : bool
        Replace NaN and Inf by the mean of the other voxels instead of refusing them.
    signed : bool, optional
        Whether bytes of MRC mode 0 are signed; by default the header decides.
    check : {"tomogram", "labels"}
        What the values must be. Labels may be empty and may lack a voxel size (a warning, and 1 Å).

    Returns
    -------
    volume : ndarray, shape (Z, Y, X)
        In the file's dtype; where possible a copy-on-write memory map: writing to it is safe and never
        changes the file. Of an OME-Zarr one level is read; `zarr_read.open_zarr` reads only what is sliced.
    metadata : dict
        voxel_size_zyx (Å), origin_xyz (Å), affine (index (Z, Y, X) to Å, same order), spatial_shape,
        original_channel_dim, filename_or_obj, header, and warnings (one line each; see `metadata_warnings`).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, no volume, or has values or a voxel size that cannot be true.
    """
    if check not in CHECKS:
        raise ValueError(f"check: expected one of {', '.join(CHECKS)}, got {check!r}.")
    path, notes = Path(path), Notes()
    raw = read_zarr(path, voxel_size, notes, check == "labels") if is_zarr(path) else _open_volume(path, signed, notes)
    check_shape(path, raw.array.shape)
    size_zyx = decide_voxel_size(path, raw, voxel_size, check, notes)
    if check == "tomogram":
        warn_if_unrotated(path, raw.array.shape, notes)
    raw.array = check_values(path, raw.array, check, fill_nonfinite, notes)
    return raw.array, build_metadata(path, raw, size_zyx, notes)


def check_job(
    job: str, paths: Sequence[str | Path], per_voxel: Sequence[float], voxel_size: Any = None, voxels: int = 0
) -> None:
    """Refuse work whose volumes and copies memory cannot hold together, before any of them is read.

    Parameters
    ----------
    job : str
        Who needs them, for the message.
    paths : sequence of path
        All that is read of one tomogram. What is mapped (plain MRC, EM, TIFF) takes no memory of its own.
    per_voxel : sequence of 2 float
        Bytes of copies for each voxel of the largest volume, and more of them where a volume is of floats.
    voxel_size : float, optional
        Å; chooses the level of an OME-Zarr.
    voxels : int
        Of the work itself, where no file says so.

    Raises
    ------
    ValueError
        Says what is needed, for what, and what there is.
    """
    volumes = {str(path): _declared(Path(path), voxel_size) for path in paths}
    sizes = {path: int(np.prod(shape, dtype=object)) for path, (shape, _, _) in volumes.items()}
    floats = any(dtype.kind == "f" for _, dtype, _ in volumes.values())
    copies = max([voxels, *sizes.values()]) * (per_voxel[0] + per_voxel[1] * floats)
    whole = {path: sizes[path] * dtype.itemsize for path, (_, dtype, mapped) in volumes.items() if not mapped}
    needed, free = sum(whole.values()) + copies, available_memory()
    if needed > free:
        read = "".join(f"{size / GIB:,.2f} for {path}, " for path, size in whole.items())
        raise ValueError(
            f"{job}: expected {needed / GIB:,.2f} GiB of memory ({read}{copies / GIB:,.2f} for copies), found "
            f"{free / GIB:,.2f} GiB free. Close other programs, bin the volumes, or store them as MRC that is not "
            "compressed, which is read by parts."
        )


def _declared(path: Path, voxel_size: Any) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Shape and type by its header, and whether it is mapped; no voxels of what cannot be read: its reader says why."""
    asked = DECLARING.set(True)
    try:
        raw = read_zarr(path, voxel_size, Notes()) if is_zarr(path) else _open_volume(path, None, Notes())
    except Declared as found:
        return found.shape, found.dtype, False
    except (ValueError, OSError, ImportError):
        return (0,), np.dtype(np.uint8), True
    finally:
        DECLARING.reset(asked)
    return raw.array.shape, raw.array.dtype, True


def _open_volume(path: Path, signed: bool | None, notes: Notes) -> RawVolume:
    name = path.name.lower()
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file. Check the path.")
    if path.is_dir():
        raise ValueError(f"{path}: expected a tomogram file, got a folder. Name the files in it, or a .zarr.")
    if name.endswith(TILT_SERIES_SUFFIXES):
        raise ValueError(
            f"{path}: expected a reconstructed tomogram, got a tilt series or image stack ({path.suffix}). "
            "Give the reconstruction, usually .rec or .mrc; rename the file if it is one."
        )
    if name.endswith(MRC_SUFFIXES):
        return read_mrc(path, signed, notes)
    if name.endswith(TIFF_SUFFIXES):
        return read_tiff(path)
    if name.endswith(NIFTI_SUFFIXES):
        return read_nifti(path)
    if name.endswith(EM_SUFFIXES):
        return read_em(path)
    raise ValueError(
        f"{path}: expected a name that ends in {', '.join(VOLUME_SUFFIXES)}, got {path.name!r}. "
        "Convert or rename the tomogram."
    )
