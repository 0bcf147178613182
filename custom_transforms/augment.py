"""Augmentation that MONAI lacks: other missing wedges and other amplitudes, in Fourier space.

Both work on the crop as if it were periodic, and give it its mean and standard deviation back: the
tomogram is z-scored as a whole, and stays so. Flips, 90-degree turns, noise and contrast are MONAI's
own (`RandFlipd`, `RandRotate90d` with ``spatial_axes=(1, 2)`` where the wedge may turn with it,
`RandGaussianNoised`, `RandScaleIntensityd`, ...).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import pi, radians, tan

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform

from custom_transforms.units import as_voxel_size_zyx

__all__ = [
    "RandFourierAmplituded",
    "RandWedgeMaskd",
    "apply_fourier_amplitude",
    "apply_wedge_mask",
    "wedge_mask",
]

TILT_AXES = ("y", "x")
SPATIAL = (-3, -2, -1)


def wedge_mask(
    shape_zyx: Sequence[int],
    max_tilt_degrees: float,
    tilt_axis: str = "y",
    voxel_size_zyx: float | Sequence[float] = 1.0,
) -> torch.Tensor:
    """Tell which Fourier voxels a tilt series from ``-max_tilt`` to ``+max_tilt`` measures.

    The beam is Z. An untilted view measures the plane k_z = 0, and tilting about Y turns it in the
    (k_z, k_x) plane: measured is ``|k_z| <= tan(max_tilt) |k_x|``, its edge and the tilt axis included.

    Parameters
    ----------
    shape_zyx : sequence of 3 ints
        Shape of the volume.
    max_tilt_degrees : float
        Largest tilt, above 0 and up to 90 (no wedge is missing).
    tilt_axis : {"y", "x"}
    voxel_size_zyx : float or sequence of 3 floats
        Only their ratio counts.

    Returns
    -------
    torch.Tensor, shape (Z, Y, X // 2 + 1), bool
        True where measured, in the order of ``torch.fft.rfftn``.

    Examples
    --------
    >>> wedge_mask((4, 1, 4), 45.0)[:, 0].int()
    tensor([[1, 1, 1],
            [0, 1, 1],
            [0, 0, 1],
            [0, 1, 1]], dtype=torch.int32)
    """
    if tilt_axis not in TILT_AXES:
        raise ValueError(f"tilt_axis: expected one of {', '.join(TILT_AXES)} (the beam is z), got {tilt_axis!r}.")
    if not 0 < max_tilt_degrees <= 90:
        raise ValueError(f"largest tilt: expected degrees above 0 and up to 90, got {max_tilt_degrees}.")
    k_z, k_y, k_x = (k.abs() for k in _frequencies(shape_zyx, voxel_size_zyx))
    if max_tilt_degrees == 90:
        return torch.ones(k_z.shape[0], k_y.shape[1], k_x.shape[2], dtype=torch.bool)
    across = k_x if tilt_axis == "y" else k_y
    # 1e-9: a plane measured at exactly the largest tilt stays, whatever the rounding
    measured = k_z <= tan(radians(max_tilt_degrees)) * (1 + 1e-9) * across
    return measured.expand(k_z.shape[0], k_y.shape[1], k_x.shape[2]).clone()


def apply_wedge_mask(
    volume: torch.Tensor,
    max_tilt_degrees: float,
    tilt_axis: str = "y",
    voxel_size_zyx: float | Sequence[float] = 1.0,
) -> torch.Tensor:
    """Remove what a tilt series of this range would not have measured.

    Parameters
    ----------
    volume : torch.Tensor, shape (..., Z, Y, X)
    max_tilt_degrees, tilt_axis, voxel_size_zyx
        See `wedge_mask`.

    Returns
    -------
    torch.Tensor, same shape, float32
        Same mean and standard deviation (over all of ``volume``) as before; the input is untouched.
    """
    mask = wedge_mask(volume.shape[-3:], max_tilt_degrees, tilt_axis, voxel_size_zyx)
    return _filtered(volume, mask)


def apply_fourier_amplitude(
    volume: torch.Tensor, coefficients: Sequence[float], voxel_size_zyx: float | Sequence[float] = 1.0
) -> torch.Tensor:
    """Multiply the spectrum by a smooth function of resolution, as another microscope or filter would.

    The gain at spatial frequency k is ``exp(sum_j c_j cos(pi j k / k_max))``, j = 1, 2, ..., where k_max is the
    Nyquist frequency of the finest axis (and holds beyond it). Phases stay.

    Parameters
    ----------
    volume : torch.Tensor, shape (..., Z, Y, X)
    coefficients : sequence of float
        c_1, c_2, ...; none or zeros change nothing.
    voxel_size_zyx : float or sequence of 3 floats
        Only their ratio counts.

    Returns
    -------
    torch.Tensor, same shape, float32
        Same mean and standard deviation (over all of ``volume``) as before; the input is untouched.
    """
    size = as_voxel_size_zyx(voxel_size_zyx)  # type: ignore[arg-type]
    k_z, k_y, k_x = _frequencies(volume.shape[-3:], voxel_size_zyx)
    phase = pi * ((k_z**2 + k_y**2 + k_x**2).sqrt() * 2 * size.min()).clamp(max=1.0)
    exponent = torch.zeros_like(phase)
    for order, coefficient in enumerate(coefficients, start=1):
        exponent += float(coefficient) * torch.cos(order * phase)
    return _filtered(volume, exponent.exp())


class RandWedgeMaskd(RandomizableTransform, MapTransform):
    """With probability ``prob``, take a random missing wedge out of the image(s), the same for all keys.

    Before or after flips is the same: they keep the wedge in place. Voxel sizes come from the
    metadata (``voxel_size_zyx``) where there are any.

    Parameters
    ----------
    keys : str or sequence of str
        Images, (C, Z, Y, X); never labels or targets.
    prob : float
    tilt_range : sequence of 2 floats
        The largest tilt is drawn evenly between them, degrees.
    tilt_axis : {"y", "x"}
    allow_missing_keys : bool

    Raises
    ------
    ValueError
        If the range is not within 0 to 90 degrees or the axis is neither.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.3,
        tilt_range: Sequence[float] = (40.0, 65.0),
        tilt_axis: str = "y",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        if len(tilt_range) != 2 or not 0 < tilt_range[0] <= tilt_range[1] <= 90:
            raise ValueError(f"tilt_range: expected two angles, 0 < low <= high <= 90 degrees, got {tilt_range!r}.")
        if tilt_axis not in TILT_AXES:
            raise ValueError(f"tilt_axis: expected one of {', '.join(TILT_AXES)} (the beam is z), got {tilt_axis!r}.")
        self.tilt_range = (float(tilt_range[0]), float(tilt_range[1]))
        self.tilt_axis = tilt_axis
        self.max_tilt = self.tilt_range[1]

    def randomize(self, data: object = None) -> None:
        super().randomize(None)
        if self._do_transform:
            self.max_tilt = float(self.R.uniform(*self.tilt_range))

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        self.randomize()
        if self._do_transform:
            for key in self.key_iterator(d):
                plain, voxel_size_zyx = _plain(d[key])
                d[key] = _like(apply_wedge_mask(plain, self.max_tilt, self.tilt_axis, voxel_size_zyx), d[key])
        return d


class RandFourierAmplituded(RandomizableTransform, MapTransform):
    """With probability ``prob``, change the image's amplitudes by a smooth random function of resolution.

    Tomograms of other microscopes, defocus, dose and filters differ in their radial power spectrum;
    a network that saw one of them only learns its spectrum, too. The same change for all keys.

    Parameters
    ----------
    keys : str or sequence of str
        Images, (C, Z, Y, X); never labels or targets.
    prob : float
    strength : float
        Root mean square of the log gain over resolution; 0.5 is a factor of 1.6 up or down.
    orders : int
        Cosines in the function; more make it less smooth.
    allow_missing_keys : bool
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.3,
        strength: float = 0.5,
        orders: int = 4,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        if strength < 0 or orders < 1:
            raise ValueError(f"expected strength >= 0 and orders >= 1, got strength {strength} and orders {orders}.")
        self.strength = float(strength)
        self.orders = int(orders)
        self.coefficients = [0.0] * self.orders

    def randomize(self, data: object = None) -> None:
        super().randomize(None)
        if self._do_transform:
            # each cosine has a mean square of 1/2
            scale = self.strength * (2 / self.orders) ** 0.5
            self.coefficients = [float(c) for c in self.R.normal(0.0, scale, self.orders)]

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        self.randomize()
        if self._do_transform:
            for key in self.key_iterator(d):
                plain, voxel_size_zyx = _plain(d[key])
                d[key] = _like(apply_fourier_amplitude(plain, self.coefficients, voxel_size_zyx), d[key])
        return d


def _frequencies(
    shape_zyx: Sequence[int], voxel_size_zyx: float | Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """k_z (Z, 1, 1), k_y (1, Y, 1) and k_x (1, 1, X // 2 + 1) in cycles per unit of the voxel size."""
    size = as_voxel_size_zyx(voxel_size_zyx)  # type: ignore[arg-type]
    k_z = torch.fft.fftfreq(shape_zyx[0], size[0], dtype=torch.float64)
    k_y = torch.fft.fftfreq(shape_zyx[1], size[1], dtype=torch.float64)
    k_x = torch.fft.rfftfreq(shape_zyx[2], size[2], dtype=torch.float64)
    return k_z[:, None, None], k_y[None, :, None], k_x[None, None, :]


def _filtered(volume: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """The volume with its spectrum times ``gain``, and its mean and standard deviation as before."""
    source = volume.float()
    mean, std = source.mean(), source.std(correction=0)
    spectrum = torch.fft.rfftn(source - mean, dim=SPATIAL) * gain.to(device=source.device, dtype=torch.float32)
    result = torch.fft.irfftn(spectrum, s=source.shape[-3:], dim=SPATIAL)
    result = result - result.mean()
    # a volume that is constant, or lies in the wedge altogether, has nothing to rescale
    changed = result.std(correction=0)
    return result * torch.where(changed > 1e-6 * std, std / changed, 1.0) + mean


def _plain(image: torch.Tensor) -> tuple[torch.Tensor, Sequence[float]]:
    """The image without metadata, and its voxel size (equal sides if unknown)."""
    if isinstance(image, MetaTensor):
        return image.as_tensor(), image.meta.get("voxel_size_zyx", (1.0, 1.0, 1.0))
    return torch.as_tensor(image), (1.0, 1.0, 1.0)


def _like(result: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    result = result.to(torch.as_tensor(image).dtype)
    if not isinstance(image, MetaTensor):
        return result
    return MetaTensor(result, meta=dict(image.meta), applied_operations=list(image.applied_operations))
