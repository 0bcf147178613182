"""Intensities: z-score once per tomogram, protein bright."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from custom_transforms.volumes.checks import add_warning
from custom_transforms.volumes.lazy import LazyVolume, Streams
from custom_transforms.volumes.slabs import chunks, moments

__all__ = [
    "CONTRASTS",
    "NormalizeTomogramd",
    "NormalizedVolume",
    "contrast_skewness",
    "normalize_tomogram",
    "warn_if_inverted",
]

CONTRASTS = ("dark", "bright")
BIN = 4  # block means of this edge take most of the noise away and leave the particles
SAMPLED_SLABS = 24  # so the look at the contrast costs the same for every size
TAIL = 0.005
FEWEST_BLOCKS = 2000  # with fewer, noise alone reaches the limit below
INVERTED_SKEWNESS = -0.1  # a real tomogram of virus-like particles has 0.16 by size, pure noise 0.02 at most
EXTREME = 20.0  # deviations: gold reaches 10 to 20, X-rays and dead pixels thousands
RARE = 0.001  # of the values, at each end; what is more frequent belongs to the tomogram
RARE_DEVIATIONS = 3.0902  # of noise, where its rare values begin
SAMPLED_VOXELS = 2**20


def normalize_tomogram(volume: np.ndarray, contrast: str = "dark") -> np.ndarray:
    """Give a tomogram mean 0 and deviation 1, with protein bright.

    Extreme voxels (`extreme_bounds`) are clipped, and do not count for mean and deviation.

    Parameters
    ----------
    volume : ndarray, any shape, real
        Finite values. Only read, so a memory map of any mode is safe, and untouched.
    contrast : {"dark", "bright"}
        How protein looks in ``volume``: "dark" (raw tomograms) multiplies by -1.

    Returns
    -------
    ndarray, same shape, float32
        A new array.

    Raises
    ------
    ValueError
        If ``contrast`` is another word, or the volume is constant or has NaN or Inf.

    Examples
    --------
    >>> normalize_tomogram(np.array([1.0, 3.0]), "dark")
    array([ 1., -1.], dtype=float32)
    """
    return _normalized(volume, Intensities.of(volume, contrast))


def _normalized(volume: np.ndarray, scale: Intensities) -> np.ndarray:
    result = np.empty(volume.shape, dtype=np.float32)
    for source, target in zip(chunks(volume), chunks(result), strict=True):
        target[...] = scale.normalized(source)
    return result


@dataclass(frozen=True)
class Intensities:
    """What normalises a tomogram: the statistics of its voxels without extreme ones, which are clipped.

    Attributes
    ----------
    mean, factor : float
        Normalised is ``(value - mean) * factor``.
    lowest, highest : float
        Where values are clipped.
    extreme : int
        Voxels beyond.
    """

    mean: float
    factor: float
    lowest: float
    highest: float
    extreme: int

    @classmethod
    def of(cls, volume: Any, contrast: str) -> Intensities:
        """Of a volume, array or only sliced; `normalize_tomogram` says what is refused."""
        _check_contrast(contrast)
        lowest, highest = extreme_bounds(volume)
        mean, deviation, extreme = moments(volume, lowest, highest)
        if not np.isfinite(deviation) or deviation == 0:
            what = "every voxel is the same" if deviation == 0 else "it has NaN or Inf"
            raise ValueError(f"tomogram: expected finite values that differ, got a volume where {what}. Load it anew.")
        return cls(mean, (-1.0 if contrast == "dark" else 1.0) / deviation, lowest, highest, extreme)

    def normalized(self, values: np.ndarray) -> np.ndarray:
        """A part of the volume with mean 0 and deviation 1 of the whole, float32."""
        part = values.astype(np.float64)
        if self.extreme:
            part = part.clip(self.lowest, self.highest)
        return ((part - self.mean) * self.factor).astype(np.float32)

    def tell(self, meta: MutableMapping[str, Any]) -> None:
        """Add a warning to the metadata if there are extreme voxels."""
        if self.extreme:
            add_warning(
                meta,
                f"{meta.get('filename_or_obj', 'tomogram')}: {self.extreme:,} voxels lie more than {EXTREME:g} "
                "deviations away (gold, X-rays, dead pixels?); they were clipped, and left out of mean and deviation.",
            )


def extreme_bounds(volume: Any) -> tuple[float, float]:
    """Say beyond which values a voxel is extreme: rare, and far from all others; infinite where that cannot be said.

    The rarest values at both ends are left aside; what remains is as wide as noise of a certain deviation, and the
    bounds are 20 of these from its middle. So a few extreme voxels cannot move them, and what is not rare, as the
    particles of a denoised tomogram, is never extreme. Evenly spaced voxels are looked at, the same however the
    volume is read.
    """
    step = int(np.ceil(np.cbrt(volume.size / SAMPLED_VOXELS)))
    sample = np.asarray(volume[(slice(None, None, step),) * volume.ndim]).ravel()
    low = float(np.quantile(sample, RARE, method="higher"))
    high = float(np.quantile(sample, 1 - RARE, method="lower"))
    reach = (high - low) / 2 * EXTREME / RARE_DEVIATIONS
    if not (np.isfinite(reach) and reach > 0):
        return -np.inf, np.inf
    return (high + low) / 2 - reach, (high + low) / 2 + reach


def contrast_skewness(volume: np.ndarray) -> float:
    """Tell which way the rare values of a tomogram stick out: above 0 bright particles, below 0 dark ones.

    Block means (4 voxels an edge) of evenly spaced slabs are compared by quantiles: how far the highest 0.5 % lie
    above the median, against how far the lowest 0.5 % lie below it. Quantiles ignore a few gold beads.

    Parameters
    ----------
    volume : ndarray, shape (Z, Y, X), real
        Only read; at most 24 slabs of 4 planes are looked at.

    Returns
    -------
    float
        -1 to 1; 0 where the volume is too small to tell (under 2,000 blocks) or the quantiles fall together.
    """
    blocks = [size // BIN for size in volume.shape]
    if int(np.prod(blocks)) < FEWEST_BLOCKS:
        return 0.0
    chosen = np.unique(np.linspace(0, blocks[0] - 1, min(SAMPLED_SLABS, blocks[0])).round().astype(int))
    means = []
    for index in chosen:
        slab = volume[index * BIN : (index + 1) * BIN, : blocks[1] * BIN, : blocks[2] * BIN]
        means.append(slab.mean(axis=0, dtype=np.float32).reshape(blocks[1], BIN, blocks[2], BIN).mean(axis=(1, 3)))
    low, middle, high = np.quantile(np.stack(means), [TAIL, 0.5, 1 - TAIL])
    return float((high + low - 2 * middle) / (high - low)) if high > low else 0.0


def _check_contrast(contrast: Any) -> None:
    if contrast not in CONTRASTS:
        raise ValueError(
            f"contrast: expected one of {', '.join(CONTRASTS)} (how protein looks in the tomogram), got {contrast!r}. "
            "Raw tomograms are dark: --contrast dark."
        )


class NormalizeTomogramd(MapTransform):
    """`normalize_tomogram` for a datalist item, with a warning where the contrast looks inverted.

    Parameters
    ----------
    keys : keys
        Tomograms (1, Z, Y, X); each is replaced by a new float32 MetaTensor with the same metadata.
    contrast : {"dark", "bright"}
        For items without an own ``contrast`` entry.
    allow_missing_keys : bool
        True skips keys that an item lacks.

    Raises
    ------
    ValueError
        If a contrast is another word, on construction or per item.
    """

    streams = Streams("loaded", "normalized", {"keys": ("image",)})

    def __init__(self, keys: KeysCollection, contrast: str = "dark", allow_missing_keys: bool = False):
        super().__init__(keys, allow_missing_keys)
        _check_contrast(contrast)
        self.contrast = contrast

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """Normalize every key of one item; ``data`` and its tensors stay as they are."""
        item = dict(data)
        contrast = self.contrast if item.get("contrast") is None else item["contrast"]
        for key in self.key_iterator(item):
            image = item[key]
            meta = dict(image.meta) if isinstance(image, MetaTensor) else {}
            volume = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
            scale = Intensities.of(volume, contrast)
            result = MetaTensor(torch.from_numpy(_normalized(volume, scale)), meta=meta)
            scale.tell(result.meta)
            warn_if_inverted(result.numpy()[0], str(contrast), result.meta)
            item[key] = result
        return item

    def streamed(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """Normalize the slices of the tomogram as they are read."""
        contrast = self.contrast if data.get("contrast") is None else data["contrast"]
        meta = dict(data["image"].meta)
        image = NormalizedVolume(data["image"], contrast, meta).with_meta(meta)
        warn_if_inverted(image, contrast, image.meta)
        return {**data, "image": image}


def warn_if_inverted(normalized: Any, contrast: str, meta: dict[str, Any]) -> None:
    """Add a warning to the metadata if a normalised tomogram (Z, Y, X) looks as if its contrast were the other one."""
    if normalized.ndim != 3 or contrast_skewness(normalized) > INVERTED_SKEWNESS:
        return
    other = CONTRASTS[1 - CONTRASTS.index(contrast)]
    add_warning(
        meta,
        f"{meta.get('filename_or_obj', 'tomogram')}: the contrast looks inverted: with --contrast {contrast} the "
        f"rare strong values are dark, and protein should be bright. If it looks {other} in the tomogram, "
        f"give --contrast {other}.",
    )


class NormalizedVolume(LazyVolume):
    """`normalize_tomogram` of a volume, slice by slice; metadata take the warning of extreme voxels."""

    def __init__(self, volume: LazyVolume, contrast: str, meta: MutableMapping[str, Any] | None = None) -> None:
        super().__init__(volume.shape, np.float32)
        self.volume, self.scale = volume, Intensities.of(volume, contrast)
        if meta is not None:
            self.scale.tell(meta)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.scale.normalized(self.volume[index])
