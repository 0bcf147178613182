"""One tomogram, resolved once: what every stage of a detection needs to know of it before its voxels are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    item : mapping
        The item of the datalist, as the first transform takes it: ``image``, and the tomogram's own ``voxel_size``
        and ``contrast`` if it has them.
    """

    path: str
    name: str
    shape_zyx: tuple[int, int, int] | None = None
    voxel_size_zyx: np.ndarray | None = field(default=None, compare=False)
    item: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def resolve(cls, source: str | Path | Mapping[str, Any], voxel_size: Any = None) -> Tomogram:
        """Resolve a file or an item of a datalist; the one time its header is read before the file is loaded.

        The item's own voxel size comes first, then the one given here (Å; one number, or Z, Y, X), the header's last.
        A header that cannot be read leaves shape and voxel size open: the reader says what is wrong with the file.

        Raises
        ------
        ValueError
            If the voxel size is none.
        """
        item: dict[str, Any] = dict(source) if isinstance(source, Mapping) else {"image": source}
        item = {**item, "image": str(item["image"])}
        shape, stored = mrc_geometry(item["image"]) or (None, None)
        size = voxel_size if item.get("voxel_size") is None else item["voxel_size"]
        if size is not None:
            size = as_voxel_size_zyx(size)
        elif stored is not None and (stored > 0).all():
            size = stored
        return cls(item["image"], tomogram_name(item["image"]), shape, size, item)
