"""load and write: tomograms and labels from their files to (Z, Y, X) arrays with Å per voxel, and back to MRC.

`TomogramReader` and `MrcWriter` are MONAI's reader and writer for this field; `LoadTomogramd` is the transform the
configs use; `read_tomogram`, `write_mrc` and `write_instances` are the plain functions inside.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import ImageReader, MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple

from custom_transforms.files.whole_files import atomic_path
from custom_transforms.volumes.checks import (
    CHECKS,
    Notes,
    RawVolume,
    add_warning,
    build_metadata,
    check_shape,
    check_values,
    decide_voxel_size,
    metadata_warnings,
    warn_if_unrotated,
)
from custom_transforms.volumes.mrc_read import read_mrc
from custom_transforms.volumes.mrc_write import MrcWriter, instance_dtype, write_instances, write_mrc
from custom_transforms.volumes.other_formats import read_em, read_nifti, read_tiff
from custom_transforms.volumes.zarr_read import is_zarr, read_zarr

__all__ = [
    "LoadTomogramd",
    "MrcReader",
    "MrcWriter",
    "TomogramReader",
    "VOLUME_SUFFIXES",
    "add_warning",
    "atomic_path",
    "instance_dtype",
    "metadata_warnings",
    "read_tomogram",
    "write_instances",
    "write_mrc",
]

MRC_SUFFIXES = (".mrc", ".rec", ".map", ".mrc.gz", ".rec.gz", ".map.gz", ".mrc.bz2", ".rec.bz2", ".map.bz2")
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
    raw = (
        read_zarr(path, voxel_size, notes, check == "tomogram") if is_zarr(path) else _open_volume(path, signed, notes)
    )
    check_shape(path, raw.array.shape)
    size_zyx = decide_voxel_size(path, raw, voxel_size, check, notes)
    if check == "tomogram":
        warn_if_unrotated(path, raw.array.shape, notes)
    raw.array = check_values(path, raw.array, check, fill_nonfinite, notes)
    return raw.array, build_metadata(path, raw, size_zyx, notes)


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


class TomogramReader(ImageReader):
    """MONAI's reader interface for every format of `read_tomogram`, chosen by the file's name.

    ``LoadImage`` tries all its readers and buries an error of `read` under theirs; so `read` only takes the path
    and `get_data` does the work: its message arrives as it is.

    Parameters
    ----------
    voxel_size, fill_nonfinite, signed, check
        As in `read_tomogram`.
    """

    suffixes: tuple[str, ...] = VOLUME_SUFFIXES

    def __init__(
        self,
        voxel_size: float | Sequence[float] | None = None,
        fill_nonfinite: bool = False,
        signed: bool | None = None,
        check: str = "tomogram",
    ):
        super().__init__()
        self.options: dict[str, Any] = {
            "voxel_size": voxel_size,
            "fill_nonfinite": fill_nonfinite,
            "signed": signed,
            "check": check,
        }

    def verify_suffix(self, filename: Any) -> bool:
        """Tell whether every name ends as a format of this reader."""
        names = [str(name) for name in ensure_tuple(filename)]
        return all(
            name.lower().endswith(self.suffixes) or (is_zarr(name) and ".zarr" in self.suffixes) for name in names
        )

    def read(self, data: Any, **kwargs: Any) -> Any:
        """Take the path; nothing is opened yet (see the class)."""
        return data

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Open and check the file; gives the volume (Z, Y, X) and its metadata."""
        paths = ensure_tuple(img)
        if len(paths) != 1:
            raise ValueError(f"expected one file for a volume, got {len(paths)}: {', '.join(map(str, paths))}.")
        return read_tomogram(paths[0], **self.options)


class MrcReader(TomogramReader):
    """`TomogramReader` for MRC files alone: .mrc .rec .map, also .gz and .bz2."""

    suffixes = MRC_SUFFIXES

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Open and check the file; a name of another format is refused."""
        if not self.verify_suffix(img):
            raise ValueError(f"{ensure_tuple(img)[0]}: expected a name that ends in {', '.join(self.suffixes)}.")
        return super().get_data(img)


class LoadTomogramd(MapTransform):
    """Load tomograms and their labels from a datalist item, with channel first and errors that reach the user.

    Parameters
    ----------
    keys : keys
        Tomograms; each becomes a float32 MetaTensor (1, Z, Y, X), sharing a float32 file's memory map.
    label_keys : keys
        Label volumes (they may also stand in ``keys``); each becomes an int16 or int32 MetaTensor (1, Z, Y, X) and
        takes the first tomogram's voxel size. Its shape must be the tomogram's.
    voxel_size : float or sequence of 3 floats (Z, Y, X), optional
        Å; replaces the files'. An item's own ``voxel_size`` comes before it.
    fill_nonfinite, signed
        As in `read_tomogram`; ``signed`` is for tomograms only.
    allow_missing_keys : bool
        True skips keys that an item lacks.

    Raises
    ------
    ValueError, FileNotFoundError
        As `read_tomogram`, and if an item lacks a key, or labels and tomogram differ in shape.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_keys: KeysCollection = (),
        voxel_size: float | Sequence[float] | None = None,
        fill_nonfinite: bool = False,
        signed: bool | None = None,
        allow_missing_keys: bool = False,
    ):
        super().__init__(keys, allow_missing_keys)
        self.label_keys = ensure_tuple(label_keys)
        self.image_keys = tuple(key for key in self.keys if key not in self.label_keys)
        self.voxel_size = voxel_size
        self.options: dict[str, Any] = {"fill_nonfinite": fill_nonfinite, "signed": signed}

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """Load every key of one item; other entries pass unchanged, and ``data`` itself stays as it is."""
        item = dict(data)
        voxel_size = self.voxel_size if item.get("voxel_size") is None else item["voxel_size"]
        first: MetaTensor | None = None
        for key in self._present(item, self.image_keys):
            volume, meta = read_tomogram(item[key], voxel_size, **self.options)
            item[key] = _as_metatensor(np.asarray(volume, dtype=np.float32), meta)
            first = item[key] if first is None else first
        for key in self._present(item, self.label_keys):
            size = voxel_size if first is None else first.meta["voxel_size_zyx"]
            labels, meta = read_tomogram(item[key], size, check="labels")
            if first is not None and labels.shape != tuple(first.shape[1:]):
                raise ValueError(
                    f"{meta['filename_or_obj']}: expected labels of the tomogram's shape (Z, Y, X) "
                    f"{tuple(first.shape[1:])}, got {labels.shape}. Its tomogram is {first.meta['filename_or_obj']}: "
                    "give labels made for it, at the same binning."
                )
            item[key] = _as_metatensor(_torch_integers(labels), meta)
        return item

    def _present(self, item: Mapping[Hashable, Any], keys: Sequence[Hashable]) -> list[Hashable]:
        missing = [key for key in keys if item.get(key) is None]
        if missing and not self.allow_missing_keys:
            raise ValueError(
                f"{missing[0]}: the item of the datalist has no such entry (it has {', '.join(map(str, item))}). "
                "Add the path to the datalist, or set allow_missing_keys."
            )
        return [key for key in keys if key not in missing]


def _as_metatensor(volume: np.ndarray, metadata: dict[str, Any]) -> MetaTensor:
    tensor = torch.from_numpy(np.asarray(volume))[None]
    return MetaTensor(tensor, meta=metadata)


def _torch_integers(labels: np.ndarray) -> np.ndarray:
    if labels.dtype in (np.int8, np.uint8, np.int16):
        return labels.astype(np.int16, copy=False)
    return labels.astype(np.int32, copy=False)
