"""load and write: tomograms and labels from their files to (Z, Y, X) arrays with Å per voxel, and back to MRC.

`TomogramReader` is MONAI's reader for this field; `LoadTomogramd` is the transform the configs use;
`read_tomogram`, `write_mrc` and `write_instances` are the plain functions inside.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import ImageReader, MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple

from custom_transforms.files.whole_files import atomic_path
from custom_transforms.volumes.checks import add_warning, metadata_warnings
from custom_transforms.volumes.lazy import Streams, open_tomogram
from custom_transforms.volumes.mrc_write import instance_dtype, write_instances, write_mrc
from custom_transforms.volumes.read import VOLUME_SUFFIXES, read_tomogram
from custom_transforms.volumes.zarr_read import is_zarr

__all__ = [
    "LoadTomogramd",
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


class TomogramReader(ImageReader):
    """MONAI's reader interface for every format of `read_tomogram`, chosen by the file's name.

    ``LoadImage`` tries all its readers and buries an error of `read` under theirs; so `read` only takes the path
    and `get_data` does the work: its message arrives as it is.

    Parameters
    ----------
    voxel_size, fill_nonfinite, signed, check
        As in `read_tomogram`.
    """

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
        return all(name.lower().endswith(VOLUME_SUFFIXES) or is_zarr(name) for name in names)

    def read(self, data: Any, **kwargs: Any) -> Any:
        """Take the path; nothing is opened yet (see the class)."""
        return data

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Open and check the file; gives the volume (Z, Y, X) and its metadata."""
        paths = ensure_tuple(img)
        if len(paths) != 1:
            raise ValueError(f"expected one file for a volume, got {len(paths)}: {', '.join(map(str, paths))}.")
        return read_tomogram(paths[0], **self.options)


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

    streams = Streams("file", "loaded", {"keys": ("image",), "label_keys": ()})

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

    def streamed(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """Open the tomogram, to be read by slices."""
        item = dict(data)
        voxel_size = self.voxel_size if item.get("voxel_size") is None else item["voxel_size"]
        volume, meta = open_tomogram(item["image"], voxel_size, **self.options)
        item["image"] = volume.with_meta(meta)
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
