"""The volumes in the dict of a transform: arrays behind tensors and their metadata, and back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from custom_transforms.units import as_voxel_size_zyx
from custom_transforms.volumes.lazy import LazyVolume

__all__ = ["volume_like", "volume_of", "voxel_size_of"]


def volume_of(data: Mapping[Hashable, Any], key: Hashable) -> Any:
    """The array (Z, Y, X) behind an entry (1, Z, Y, X) or (Z, Y, X), no copy on the CPU; a `LazyVolume` as it is."""
    value = data[key]
    if isinstance(value, LazyVolume):
        return value
    if isinstance(value, MetaTensor):
        value = value.as_tensor()
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3:
        raise ValueError(f"{key}: expected (1, Z, Y, X) or (Z, Y, X), got {array.shape}. Pass one tomogram at a time.")
    return array


def voxel_size_of(data: Mapping[Hashable, Any], key: Hashable) -> np.ndarray:
    """Å per voxel of an entry, from its metadata."""
    meta = getattr(data[key], "meta", {})
    if "voxel_size_zyx" not in meta:
        raise ValueError(
            f"{key}: expected voxel_size_zyx (Å, in the order Z, Y, X) in its metadata, found none. "
            "Load it with the readers of custom_transforms.io, which set it."
        )
    return as_voxel_size_zyx(meta["voxel_size_zyx"])


def volume_like(array: Any, source: Any) -> Any:
    """Wrap a new volume like ``source``: its channel axis, and its metadata if it has any."""
    if isinstance(array, LazyVolume):
        return array.with_meta(source.meta)
    shaped = array[None] if np.ndim(source) == 4 else array
    if isinstance(source, MetaTensor):
        return MetaTensor(torch.from_numpy(shaped), meta=dict(source.meta))
    return torch.from_numpy(shaped) if isinstance(source, torch.Tensor) else shaped
