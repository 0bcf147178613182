"""Crop to the middle of what is labelled, so that validation looks where somebody annotated."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, SpatialCrop

__all__ = ["CropLabelledd", "labelled_region"]


def labelled_region(labels: np.ndarray, size_zyx: Sequence[int]) -> tuple[slice, ...]:
    """Place a region in the middle of the labelled part of a volume.

    Parameters
    ----------
    labels : ndarray, shape (Z, Y, X)
        Negative voxels are not labelled (-1, ignored). The labelled part is the box around the others; where there
        are none it is the whole volume, as it is where all are labelled.
    size_zyx : sequence of 3 ints
        Voxels along each axis; -1, or more than there are, takes the whole axis.

    Returns
    -------
    tuple of 3 slices
        Inside the volume.

    Examples
    --------
    >>> labels = np.full((20, 20, 20), -1)
    >>> labels[:, 2:8, 16:] = 0  # the middle of 2 to 8 is 5; a region around 18 would leave the volume
    >>> labelled_region(labels, (-1, 4, 8))
    (slice(0, 20, None), slice(3, 7, None), slice(12, 20, None))
    """
    labelled = labels >= 0
    region = []
    for axis, wanted in enumerate(size_zyx):
        length = labels.shape[axis]
        size = length if wanted < 0 else min(int(wanted), length)
        found = np.flatnonzero(labelled.any(axis=tuple(one for one in range(labels.ndim) if one != axis)))
        first, stop = (found[0], found[-1] + 1) if found.size else (0, length)
        start = int(np.clip((first + stop) // 2 - size // 2, 0, length - size))
        region.append(slice(start, start + size))
    return tuple(region)


class CropLabelledd(MapTransform):
    """Crop all keys to the `labelled_region` of one of them.

    Where the whole volume is labelled, this is MONAI's ``CenterSpatialCropd``.

    Parameters
    ----------
    keys : str or sequence of str
        Volumes (C, Z, Y, X) over the same voxels.
    label_key : str
        The one that says which voxels are labelled; its first channel counts.
    roi_size : sequence of 3 ints
        Voxels Z, Y, X; -1 takes the whole axis.
    """

    def __init__(
        self, keys: KeysCollection, label_key: str, roi_size: Sequence[int], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label_key = label_key
        self.roi_size = tuple(np.broadcast_to(roi_size, 3).tolist())

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        label = d[self.label_key]
        plain = label.as_tensor() if isinstance(label, MetaTensor) else torch.as_tensor(label)
        region = labelled_region(plain[0].cpu().numpy(), self.roi_size)
        crop = SpatialCrop(roi_slices=region)
        for key in self.key_iterator(d):
            d[key] = crop(d[key])
        return d
