"""One tomogram, resolved once: what every stage of a detection needs to know of it before its voxels are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from custom_transforms.files.names import tomogram_name
from custom_transforms.units import as_voxel_size_zyx
from custom_transforms.volumes.mrc_read import mrc_geometry

__all__ = ["Tomogram"]


@dataclass(frozen=True)
class Tomogram:
    """A tomogram on its way through a detection: plan, load, predict, label, save.

    Attributes
    ----------
    path : str
        Its file, or folder of a Zarr.
    name : str
        Of its output folder and files (`tomogram_name`).
    shape_zyx : tuple of 3 ints, or None
        Voxels; None where that takes more than an MRC header.
    voxel_size_zyx : ndarray, shape (3,), or None
        Å; None where nobody has said it yet.
    voxel_size_from : {"dataset", "settings", "header", ""}
        Who said it: the item of a datalist or copick project, the settings, the header of its file, nobody yet.
    contrast : {"dark", "bright"}, or None
        What protein looks like in it; None where nobody has said it yet.
    item : mapping
        The item of the datalist, as the first transform takes it: ``image``, and the tomogram's own ``voxel_size``
        and ``contrast`` if it has them.
    """

    path: str
    name: str
    shape_zyx: tuple[int, int, int] | None = None
    voxel_size_zyx: np.ndarray | None = field(default=None, compare=False)
    voxel_size_from: Literal["dataset", "settings", "header", ""] = ""
    contrast: str | None = None
    item: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def resolve(cls, source: str | Path | Mapping[str, Any]) -> Tomogram:
        """Resolve a file or an item of a datalist; the one time its header is read before the file is loaded.

        A header that cannot be read leaves shape and voxel size open: the reader says what is wrong with the file.

        Raises
        ------
        ValueError
            If the item's own voxel size is none.
        """
        item: dict[str, Any] = dict(source) if isinstance(source, Mapping) else {"image": source}
        item = {**item, "image": str(item["image"])}
        shape, size = mrc_geometry(item["image"]) or (None, None)
        known = size is not None and bool((size > 0).all())
        tomogram = cls(
            item["image"], tomogram_name(item["image"]), shape, size if known else None, "header" if known else "",
            item.get("contrast"), item,
        )  # fmt: skip
        if item.get("voxel_size") is None:
            return tomogram
        return replace(tomogram, voxel_size_zyx=as_voxel_size_zyx(item["voxel_size"]), voxel_size_from="dataset")

    def with_settings(self, voxel_size: Any = None, contrast: str | None = None) -> Tomogram:
        """Fill in what the settings say (Å, Z, Y, X; None is nothing): its own come first, a header's size last."""
        size, origin = self.voxel_size_zyx, self.voxel_size_from
        if voxel_size is not None and origin != "dataset":
            size, origin = as_voxel_size_zyx(voxel_size), "settings"
        return replace(self, voxel_size_zyx=size, voxel_size_from=origin, contrast=self.contrast or contrast)
