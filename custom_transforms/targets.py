"""Targets: instance labels in, what the two networks learn out.

Labels are whole numbers: 0 background, 1 and up one particle each (gaps allowed), -1 ignored. Every
target is -1 exactly where it must not count. Compute targets on the whole volume, before cropping: a
particle cut by a crop would get another center.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

import fastremap
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple_rep

from custom_transforms.measuring.instance_centers import (
    CLOSING_ANGSTROM,
    Box,
    InstanceCenters,
    as_label_volume,
    distance_to_outside,
    instance_boxes,
    instance_centers,
)
from custom_transforms.units import as_voxel_size_zyx
from custom_transforms.volumes.metatensors import voxel_size_of

__all__ = [
    "CenterTargetd",
    "CheckLabelsd",
    "MaskTargetd",
    "center_target",
    "mask_target",
    "size_weights",
]

IGNORED = -1
TRUNCATE_SIGMAS = 3.0
BALANCED_SIGMAS = 2.0  # a sigma is a quarter of the diameter: the particle's surface
SIZE_EXPONENT = 2.0
CENTER_KINDS = ("gaussian", "distance")

Array = TypeVar("Array", np.ndarray, torch.Tensor)


def mask_target(labels: Array) -> Array:
    """Turn instance labels, of any shape and number type, into the target of MaskNet.

    Returns
    -------
    ndarray or torch.Tensor, like the input, int8
        1 particle, 0 background, -1 ignored. The input is untouched.

    Examples
    --------
    >>> mask_target(np.array([0, 7, -1, 300]))
    array([ 0,  1, -1,  1], dtype=int8)
    """
    if isinstance(labels, torch.Tensor):
        plain = labels.as_tensor() if isinstance(labels, MetaTensor) else labels
        return (plain > 0).to(torch.int8) - (plain < 0).to(torch.int8)
    return (labels > 0).astype(np.int8) - (labels < 0).astype(np.int8)


def center_target(
    labels: Array,
    voxel_size_zyx: float | tuple[float, float, float] | np.ndarray,
    kind: str = "gaussian",
    sigma_fraction: float = 0.25,
    closing_angstrom: float = CLOSING_ANGSTROM,
    sigma_max_voxels: float | None = None,
    found: InstanceCenters | None = None,
) -> Array:
    """Turn instance labels into the target of CenterNet.

    ``gaussian``: a Gaussian of the distance in Å to each particle's sub-voxel center (see
    `instance_centers`). Its sigma is ``sigma_fraction`` of the filled particle's diameter, at least
    one voxel (the coarsest axis) and at most ``sigma_max_voxels``. It is 1 at the center itself and
    is **not** rescaled on the grid: a center between voxels has no voxel of exactly 1, so the map
    keeps the sub-voxel position. It ends at 3 sigma, reaches beyond the particle and into its cavity,
    and the larger one holds where two overlap on background. A voxel of a particle takes the value of
    that particle alone, so the valley between touching particles is theirs.

    ``distance``: the original's. Within each particle, the distance in Å to the nearest voxel that is
    not this particle; voxels with a face outside it set to 0; divided by the particle's own maximum.
    The volume's border is no outside. A particle of boundary voxels only keeps its distances, so that
    it has a peak of 1 like every other; one that fills the volume is 1 throughout.

    Parameters
    ----------
    labels : ndarray or torch.Tensor, shape (Z, Y, X) or (1, Z, Y, X)
        Instance labels.
    voxel_size_zyx : float or sequence of 3 floats
        Å per voxel along Z, Y, X.
    kind : {"gaussian", "distance"}
    sigma_fraction, closing_angstrom : float
        For ``gaussian``: sigma over diameter, > 0, and the closing of `instance_centers`.
    sigma_max_voxels : float, optional
        For ``gaussian``: the largest sigma, >= 1, in voxels of the coarsest axis. Where sizes differ much, a large
        particle otherwise outweighs a small one in the loss by the cube of their sizes.
    found : InstanceCenters, optional
        The `instance_centers` of these labels, if they are measured already.

    Returns
    -------
    ndarray or torch.Tensor, like the input in kind and shape, float32
        0 to 1, and -1 where ignored. The input is untouched.

    Raises
    ------
    ValueError
        If the kind is unknown, a number out of range, or the labels are not labels.

    Examples
    --------
    >>> center_target(np.array([[[0, 5, 5, 5, 0, -1]]]), 10.0, kind="gaussian").round(2)
    array([[[ 0.14, 0.61, 1. , 0.61, 0.14, -1. ]]], dtype=float32)
    """
    if kind not in CENTER_KINDS:
        raise ValueError(f"kind of center target: expected one of {', '.join(CENTER_KINDS)}, got {kind!r}.")
    if not sigma_fraction > 0:
        raise ValueError(f"sigma_fraction: expected a number above 0, got {sigma_fraction}.")
    if sigma_max_voxels is not None and not sigma_max_voxels >= 1:
        raise ValueError(f"sigma_max_voxels: expected a number of at least 1, or none, got {sigma_max_voxels}.")
    size = as_voxel_size_zyx(voxel_size_zyx)
    volume = as_label_volume(labels)
    if kind == "gaussian":
        found = found or instance_centers(volume, size, closing_angstrom)
        sigmas = _sigmas(found, size, sigma_fraction, sigma_max_voxels)
        target = np.zeros(volume.shape, np.float32)
        for box, value in _gaussians(volume, size, sigmas, found):
            np.maximum(target[box], value, out=target[box], casting="same_kind")
    else:
        target = _distance_target(volume, size)
    target[volume < 0] = IGNORED
    target = target.reshape(labels.shape)
    return torch.from_numpy(target) if isinstance(labels, torch.Tensor) else target


def size_weights(
    labels: Array,
    voxel_size_zyx: float | tuple[float, float, float] | np.ndarray,
    balance_voxels: float = 2.0,
    sigma_fraction: float = 0.25,
    closing_angstrom: float = CLOSING_ANGSTROM,
    found: InstanceCenters | None = None,
) -> Array:
    """Say how much each voxel counts in CenterNet's loss, so that large particles do not outweigh small ones.

    A Gaussian of `center_target` fills a volume that grows with the cube of the particle's size. The voxels of a
    particle, and the background within two sigma of its center, weigh ``(balance_voxels / sigma) ** 2`` where sigma is
    larger than ``balance_voxels``, all others 1. The width of the target still follows the particle's size: its height
    in a prediction tells how likely the center lies within half a radius, for large particles as for small ones.

    Parameters
    ----------
    labels, voxel_size_zyx, sigma_fraction, closing_angstrom, found
        As in `center_target`.
    balance_voxels : float
        Sigma, in voxels of the coarsest axis, up to which a particle has the full weight; >= 1.

    Returns
    -------
    ndarray or torch.Tensor, like the input in kind and shape, float32
        Above 0, at most 1.

    Examples
    --------
    >>> ball = np.linalg.norm(np.indices((25, 25, 25)) - 12.0, axis=0) <= 8
    >>> weights = size_weights(ball.astype(int), 10.0)
    >>> weights[12, 12, 12].round(2), weights[0, 0, 0]
    (np.float32(0.25), np.float32(1.0))
    """
    if not balance_voxels >= 1:
        raise ValueError(f"balance_voxels: expected a number of at least 1, got {balance_voxels}.")
    size = as_voxel_size_zyx(voxel_size_zyx)
    volume = as_label_volume(labels)
    found = found or instance_centers(volume, size, closing_angstrom)
    sigmas = _sigmas(found, size, sigma_fraction, None)
    by_particle = np.minimum(1.0, balance_voxels * size.max() / sigmas) ** SIZE_EXPONENT
    nearest, weights = np.zeros(volume.shape, np.float32), np.ones(volume.shape, np.float32)
    least = np.exp(-0.5 * BALANCED_SIGMAS**2)
    for (box, value), weight in zip(_gaussians(volume, size, sigmas, found), by_particle, strict=True):
        won = (value >= least) & (value > nearest[box]) & (volume[box] <= 0)
        weights[box][won] = weight
        nearest[box][won] = value[won]
    of_label = np.ones(int(volume.max(initial=0)) + 1, np.float32)
    of_label[found.ids] = by_particle
    weights = np.where(volume > 0, of_label[np.maximum(volume, 0)], weights).reshape(labels.shape)
    return torch.from_numpy(weights) if isinstance(labels, torch.Tensor) else weights


def _sigmas(found: InstanceCenters, size: np.ndarray, fraction: float, largest_voxels: float | None) -> np.ndarray:
    return np.clip(fraction * found.diameters_angstrom, size.max(), (largest_voxels or np.inf) * size.max())


def _gaussians(
    volume: np.ndarray, size: np.ndarray, sigmas: np.ndarray, found: InstanceCenters
) -> Iterator[tuple[Box, np.ndarray]]:
    """Box and values of every particle's Gaussian, 0 on the voxels of other particles."""
    for label, center, sigma in zip(found.ids, found.centers_zyx_vox, sigmas, strict=True):
        reach = TRUNCATE_SIGMAS * sigma / size
        low = np.maximum(np.ceil(center - reach), 0).astype(int)
        high = np.minimum(np.floor(center + reach) + 1, volume.shape).astype(int)
        z, y, x = (((np.arange(a, b) - c) * s / sigma) ** 2 for a, b, c, s in zip(low, high, center, size, strict=True))
        squared = z[:, None, None] + y[:, None] + x
        value = np.exp(-0.5 * squared)
        box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
        owner = volume[box]
        value[(squared > TRUNCATE_SIGMAS**2) | ((owner > 0) & (owner != label))] = 0
        yield box, value


def _distance_target(volume: np.ndarray, size: np.ndarray) -> np.ndarray:
    target = np.zeros(volume.shape, np.float32)
    for label, box in instance_boxes(volume):
        # one voxel more on each side, where the volume has one, holds every nearest outside voxel
        grown = tuple(slice(max(at.start - 1, 0), at.stop + 1) for at in box)
        mask = volume[grown] == label
        distance = distance_to_outside(mask, size)
        inner = np.where(_has_outer_face(mask), 0, distance)
        peak = inner.max()
        if peak == 0:
            inner, peak = distance, distance.max()
        target[grown][mask] = inner[mask] / peak if np.isfinite(peak) else 1.0
    return target


def _has_outer_face(mask: np.ndarray) -> np.ndarray:
    """Voxels with a face neighbour outside the mask (the array's border is not outside)."""
    outer = np.zeros_like(mask)
    for axis in range(3):
        ahead, behind = np.moveaxis(outer, axis, 0)[1:], np.moveaxis(outer, axis, 0)[:-1]
        along = np.moveaxis(mask, axis, 0)
        ahead |= ~along[:-1]
        behind |= ~along[1:]
    return outer


class MaskTargetd(MapTransform):
    """Dictionary version of `mask_target`: instance labels -> {0, 1, -1} int8 beside them.

    Parameters
    ----------
    keys, target_key : str or sequence of str
        Instance labels, (1, Z, Y, X), and where each target goes, with the label's metadata.
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        target_key: str | tuple[str, ...] = "mask",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.target_key = ensure_tuple_rep(target_key, len(self.keys))

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key, target_key in self.key_iterator(d, self.target_key):
            d[target_key] = _like(mask_target(d[key]), d[key])
        return d


class CenterTargetd(MapTransform):
    """Dictionary version of `center_target`; the voxel size comes from the label's metadata.

    Parameters
    ----------
    keys, target_key : str or sequence of str
        Instance labels, (1, Z, Y, X), with ``voxel_size_zyx`` in their metadata, and where each
        target goes, with the label's metadata.
    kind, sigma_fraction, closing_angstrom, sigma_max_voxels
        See `center_target`.
    dtype : torch.dtype or str
        Stored type; ``float16`` halves the cache and is exact to 0.0005.
    balance_voxels : float, optional
        Add the `size_weights` as one more channel for `CenterLoss`.
    classes : sequence or mapping, optional
        Make a channel for each class, (classes, Z, Y, X), of the particles that have its number in ``class_key``
        (`ClassLabelsd`); -1 also where that is -1.
    class_key : str
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        target_key: str | tuple[str, ...] = "center",
        kind: str = "gaussian",
        sigma_fraction: float = 0.25,
        closing_angstrom: float = CLOSING_ANGSTROM,
        dtype: torch.dtype | str = torch.float32,
        allow_missing_keys: bool = False,
        sigma_max_voxels: float | None = None,
        balance_voxels: float | None = None,
        classes: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        class_key: str = "class",
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.classes, self.class_key = len(classes or ()), class_key
        if kind not in CENTER_KINDS:
            raise ValueError(f"kind of center target: expected one of {', '.join(CENTER_KINDS)}, got {kind!r}.")
        self.target_key = ensure_tuple_rep(target_key, len(self.keys))
        self.kind = kind
        self.sigma_fraction = float(sigma_fraction)
        self.closing_angstrom = float(closing_angstrom)
        self.sigma_max_voxels = sigma_max_voxels
        self.balance_voxels = balance_voxels
        self.dtype = _as_float_dtype(dtype)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key, target_key in self.key_iterator(d, self.target_key):
            size = voxel_size_of(d, key)
            options = (self.sigma_fraction, self.closing_angstrom)
            measured = self.balance_voxels is not None or self.classes
            found = instance_centers(d[key], size, self.closing_angstrom) if measured else None
            if self.classes and found is not None:
                target = self._by_class(d[key], torch.as_tensor(d[self.class_key]), size, found)
            else:
                target = center_target(d[key], size, self.kind, *options, self.sigma_max_voxels, found)
            if self.balance_voxels is not None:
                weights = size_weights(d[key], size, self.balance_voxels, *options, found)
                target = torch.cat([torch.as_tensor(target), torch.as_tensor(weights)])
            d[target_key] = _like(target, d[key], self.dtype)
        return d

    def _by_class(
        self, labels: torch.Tensor, numbers: torch.Tensor, size: np.ndarray, found: InstanceCenters
    ) -> torch.Tensor:
        """A center target for each class, (classes, Z, Y, X)."""
        volume, kinds = as_label_volume(labels), np.asarray(numbers).reshape(labels.shape[-3:])
        of_label = np.zeros(int(volume.max(initial=0)) + 1, dtype=np.int64)
        of_label[volume[volume > 0]] = kinds[volume > 0]
        targets = []
        for number in range(1, self.classes + 1):
            chosen = of_label[found.ids] == number
            own = InstanceCenters(found.ids[chosen], found.centers_zyx_vox[chosen], found.diameters_angstrom[chosen])
            if self.kind == "distance":  # its distances end at the particle's own surface, whatever is beyond
                volume_of_class = np.where((volume > 0) & (kinds != number), 0, volume)
                target = center_target(volume_of_class, size, self.kind)
            else:
                options = (self.sigma_fraction, self.closing_angstrom, self.sigma_max_voxels)
                target = center_target(volume, size, self.kind, *options, own)
            target[kinds < 0] = IGNORED
            targets.append(torch.from_numpy(target))
        return torch.stack(targets)


class CheckLabelsd(MapTransform):
    """Stop with a ValueError when a training volume holds fewer than ``minimum`` labelled particles."""

    def __init__(self, keys: KeysCollection = "label", minimum: int = 1, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.minimum = int(minimum)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            ids, counts = fastremap.unique(as_label_volume(d[key]), return_counts=True)
            found = int((ids > 0).sum())
            if found < self.minimum:
                name = getattr(d[key], "meta", {}).get("filename_or_obj", f"the entry {key!r}")
                background, ignored = int(counts[ids == 0].sum()), int(counts[ids < 0].sum())
                raise ValueError(
                    f"{name}: expected at least {self.minimum} labelled particle(s) to train on, got {found} "
                    f"({background:,} background and {ignored:,} ignored voxels). Check that this is the label file "
                    "of its tomogram, make it with `python -m scripts prepare`, or take it out of the datalist."
                )
        return d


def _like(target: np.ndarray | torch.Tensor, labels: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """The target on the labels' device, with a copy of their metadata if they have any."""
    tensor = torch.as_tensor(target).to(device=torch.as_tensor(labels).device, dtype=dtype)
    if not isinstance(labels, MetaTensor):
        return tensor
    return MetaTensor(tensor, meta=dict(labels.meta), applied_operations=list(labels.applied_operations))


def _as_float_dtype(dtype: torch.dtype | str) -> torch.dtype:
    chosen = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if not isinstance(chosen, torch.dtype) or not chosen.is_floating_point:
        raise ValueError(f"dtype: expected float16 or float32, got {dtype!r}.")
    return chosen
