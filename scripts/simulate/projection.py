"""Tilt projections of a volume and their adjoint, exact in Fourier space.

A projection along the tilted beam is a central slice of the volume's Fourier transform. The slice is computed
by a direct Fourier sum over x (a matrix product) and over z (a phase), so nothing is interpolated: what the
missing wedge hides stays hidden, and back-projection is the exact adjoint of projection.

The tilt axis is Y, the beam Z. At tilt angle t a voxel at (x, z), measured from the volume's middle, lands on
the detector at u = x cos t + z sin t; y stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

__all__ = ["TiltGeometry", "back_project", "project"]


@dataclass(frozen=True)
class TiltGeometry:
    """Size of the volume and of the detector that sees it.

    Attributes
    ----------
    shape_zyx : tuple of 3 int
        Voxels of the volume.
    detector_width : int
        Detector pixels across the tilt axis; odd, so that no frequency lies exactly at Nyquist.
    """

    shape_zyx: tuple[int, int, int]
    detector_width: int

    @classmethod
    def for_volume(cls, shape_zyx: tuple[int, int, int]) -> TiltGeometry:
        """Choose a detector that catches every voxel at every tilt, with a margin for the contrast transfer."""
        depth, height, width = shape_zyx
        return cls((depth, height, width), _odd_fast_length(math.ceil(math.hypot(depth, width)) + 8))

    @property
    def n_frequencies(self) -> int:
        return self.detector_width // 2 + 1

    def frequencies(self, device: torch.device) -> torch.Tensor:
        """Detector frequencies from 0 to just below Nyquist, shape (K,), cycles per voxel."""
        return torch.fft.rfftfreq(self.detector_width, dtype=torch.float64, device=device)


def project(volume: torch.Tensor, tilts_deg: torch.Tensor, geometry: TiltGeometry, report=lambda: None) -> torch.Tensor:
    """Project a volume at every tilt angle.

    Parameters
    ----------
    volume : Tensor, shape (Z, Y, X), float32
        Density; zero outside.
    tilts_deg : Tensor, shape (n,)
        Tilt angles in degrees about the Y axis.
    geometry : TiltGeometry
        Its ``shape_zyx`` must be the volume's.
    report : callable, optional
        Called without arguments after each tilt (progress).

    Returns
    -------
    Tensor, shape (n, Y, U), float32
        Line integrals in density x voxels; column ``(U - 1) / 2`` is the projection of the volume's middle.
    """
    if tuple(volume.shape) != tuple(geometry.shape_zyx):
        raise ValueError(f"project: expected a volume of shape {geometry.shape_zyx}, got {tuple(volume.shape)}.")
    depth, height, width = geometry.shape_zyx
    lines = volume.reshape(depth * height, width)
    slices = []
    for tilt in tilts_deg.tolist():
        along_x, along_z = _phases(tilt, geometry, volume.device)
        spectrum = lines @ torch.cat([along_x.cos(), -along_x.sin()], dim=1)  # (Z*Y, 2K)
        spectrum = spectrum.reshape(depth, height, 2, -1)
        real, imaginary = spectrum[:, :, 0], spectrum[:, :, 1]
        cosine, sine = along_z.cos()[:, None], along_z.sin()[:, None]  # (Z, 1, K)
        slices.append(
            torch.complex(
                (real * cosine).addcmul_(imaginary, sine).sum(0),
                (imaginary * cosine).addcmul_(real, sine, value=-1).sum(0),
            )
        )
        report()
    return _from_centered_spectrum(torch.stack(slices), geometry)


def back_project(
    images: torch.Tensor, tilts_deg: torch.Tensor, geometry: TiltGeometry, report=lambda: None
) -> torch.Tensor:
    """Smear every image back through the volume along its beam and add up: the adjoint of `project`.

    Parameters
    ----------
    images : Tensor, shape (n, Y, U), float32
        Tilt images on the geometry's detector, already filtered where a weighted back-projection is wanted.
    tilts_deg : Tensor, shape (n,)
        Tilt angles in degrees.
    geometry : TiltGeometry
        Gives the shape of the result.
    report : callable, optional
        Called without arguments after each tilt (progress).

    Returns
    -------
    Tensor, shape (Z, Y, X), float32
    """
    depth, height, width = geometry.shape_zyx
    if tuple(images.shape) != (len(tilts_deg), height, geometry.detector_width):
        raise ValueError(
            f"back_project: expected images of shape {(len(tilts_deg), height, geometry.detector_width)}, "
            f"got {tuple(images.shape)}."
        )
    volume = torch.zeros(depth * height, width, dtype=images.dtype, device=images.device)
    for spectrum, tilt in zip(_to_centered_spectrum(images, geometry), tilts_deg.tolist(), strict=True):
        along_x, along_z = _phases(tilt, geometry, images.device)
        cosine, sine = along_z.cos()[:, None], along_z.sin()[:, None]  # (Z, 1, K)
        planes = torch.empty(depth, height, 2, geometry.n_frequencies, dtype=images.dtype, device=images.device)
        planes[:, :, 0] = spectrum.real * cosine - spectrum.imag * sine
        planes[:, :, 1] = spectrum.real * sine + spectrum.imag * cosine
        waves = torch.cat([along_x.cos(), -along_x.sin()], dim=1)  # (X, 2K)
        volume.addmm_(planes.reshape(depth * height, -1), waves.T)
        report()
    return volume.reshape(depth, height, width)


def _phases(tilt_deg: float, geometry: TiltGeometry, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Phases 2 pi k u of every x, shape (X, K), and of every z, shape (Z, K), float32."""
    depth, _, width = geometry.shape_zyx
    frequencies = 2 * math.pi * geometry.frequencies(device)
    x = torch.arange(width, dtype=torch.float64, device=device) - (width - 1) / 2
    z = torch.arange(depth, dtype=torch.float64, device=device) - (depth - 1) / 2
    angle = math.radians(tilt_deg)
    return (
        (math.cos(angle) * x[:, None] * frequencies).float(),
        (math.sin(angle) * z[:, None] * frequencies).float(),
    )


def _center_phase(geometry: TiltGeometry, device: torch.device) -> torch.Tensor:
    """Moves the detector's middle to index 0, shape (K,), complex64."""
    angle = 2 * math.pi * geometry.frequencies(device) * (geometry.detector_width - 1) / 2
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


def _from_centered_spectrum(spectrum: torch.Tensor, geometry: TiltGeometry) -> torch.Tensor:
    shifted = spectrum * _center_phase(geometry, spectrum.device).conj()
    return torch.fft.irfft(shifted, n=geometry.detector_width, dim=-1)


def _to_centered_spectrum(images: torch.Tensor, geometry: TiltGeometry) -> torch.Tensor:
    """Fourier coefficients whose sum with the waves of `_phases` gives the image back at any position."""
    spectrum = torch.fft.rfft(images, dim=-1) * _center_phase(geometry, images.device)
    weights = torch.full((geometry.n_frequencies,), 2.0 / geometry.detector_width, device=images.device)
    weights[0] /= 2  # frequency 0 has no mirror image
    return spectrum * weights


def _odd_fast_length(minimum: int) -> int:
    """The next odd length whose prime factors are 3, 5 and 7."""
    length = minimum | 1
    while True:
        rest = length
        for factor in (3, 5, 7):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 2
