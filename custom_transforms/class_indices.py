"""Some voxels of every class, for crops around them: MONAI's choice, without listing all voxels first."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

__all__ = ["SampleClassIndicesd", "sample_class_indices"]

PART = 2**22  # voxels looked at at once


def sample_class_indices(labels: np.ndarray, num_classes: int, max_samples_per_class: int) -> list[np.ndarray]:
    """Choose voxels of every class, evenly spaced in the order of the voxels.

    The same as MONAI's ``map_classes_to_indices``, which lists every voxel of a class before it chooses: 8 bytes each,
    several GB for a tomogram.

    Parameters
    ----------
    labels : ndarray, any shape
        Class of every voxel; what is no class, such as -1 (ignore), is left out.
    num_classes : int
        Classes are 0 to num_classes - 1.
    max_samples_per_class : int
        A class with no more voxels gives all of them.

    Returns
    -------
    list of ndarray of int64
        Flat indices, sorted, one array per class; empty for a class that does not occur.

    Examples
    --------
    >>> [one.tolist() for one in sample_class_indices(np.array([0, 1, 0, -1, 0, 0, 0]), 3, 3)]
    [[0, 4, 6], [1], []]
    """
    if num_classes < 1 or max_samples_per_class < 1:
        raise ValueError(
            f"expected num_classes and max_samples_per_class of 1 or more, got {num_classes} and "
            f"{max_samples_per_class}."
        )
    flat = np.ascontiguousarray(labels).reshape(-1)
    starts = range(0, flat.size, PART)
    return [_sample(flat, starts, one, max_samples_per_class) for one in range(num_classes)]


def _sample(flat: np.ndarray, starts: range, wanted: int, most: int) -> np.ndarray:
    counts = [int(np.count_nonzero(flat[a : a + PART] == wanted)) for a in starts]
    total = sum(counts)
    # which of the class's voxels, counted from 0
    ranks = np.round(np.linspace(0, total - 1, most)).astype(np.int64) if total > most > 0 else np.arange(total)
    found, before = [np.zeros(0, np.int64)], 0
    for start, count in zip(starts, counts, strict=True):
        here = ranks[np.searchsorted(ranks, before) : np.searchsorted(ranks, before + count)] - before
        if here.size:
            found.append(np.flatnonzero(flat[start : start + PART] == wanted)[here] + start)
        before += count
    return np.concatenate(found)


class SampleClassIndicesd(MapTransform):
    """Write ``<key><postfix>``, voxels of every class for ``RandCropByLabelClassesd``; see `sample_class_indices`.

    Parameters
    ----------
    keys : str or sequence of str
        Labels (1, Z, Y, X).
    num_classes, max_samples_per_class : int
        As in `sample_class_indices`.
    indices_postfix : str
    """

    def __init__(
        self, keys: KeysCollection, num_classes: int, max_samples_per_class: int, indices_postfix: str = "_indices",
        allow_missing_keys: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(keys, allow_missing_keys)
        self.num_classes, self.max_samples_per_class = num_classes, max_samples_per_class
        self.indices_postfix = indices_postfix

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            labels = d[key].as_tensor() if isinstance(d[key], MetaTensor) else torch.as_tensor(d[key])
            if labels.ndim != 4 or labels.shape[0] != 1:
                raise ValueError(f"{key}: expected labels (1, Z, Y, X), got {tuple(labels.shape)}.")
            found = sample_class_indices(labels.cpu().numpy(), self.num_classes, self.max_samples_per_class)
            d[f"{key}{self.indices_postfix}"] = [torch.from_numpy(one) for one in found]
        return d
