"""Weighted back-projection: tilt images to tomogram."""

from __future__ import annotations

import math

import torch

from scripts.simulate.imaging import Microscope, contrast_transfer
from scripts.simulate.projection import TiltGeometry, back_project

__all__ = ["deconvolve", "highpass", "lowpass", "ramp_filter", "weighted_back_projection"]


def ramp_filter(geometry: TiltGeometry, cutoff: float = 0.5, falloff: float = 0.05) -> torch.Tensor:
    """Weight of each detector frequency across the tilt axis.

    Parameters
    ----------
    geometry : TiltGeometry
        Gives the frequencies.
    cutoff : float
        Frequency (cycles per voxel, up to 0.5) where the ramp ends.
    falloff : float
        Width of the Gaussian that ends it, cycles per voxel; 0 cuts sharply.

    Returns
    -------
    Tensor, shape (K,), float32
        ``|k|`` up to the cutoff. Frequency 0 gets a quarter of the first step, the value of a ramp sampled in
        real space, so that the mean of the object is kept in proportion.
    """
    frequencies = geometry.frequencies(torch.device("cpu"))
    ramp = frequencies.clone()
    ramp[0] = frequencies[1] / 4
    beyond = (frequencies - cutoff).clamp(min=0)
    tail = torch.exp(-0.5 * (beyond / falloff) ** 2) if falloff > 0 else (beyond == 0).double()
    return (ramp * tail).float()


def weighted_back_projection(
    images: torch.Tensor,
    tilts_deg: torch.Tensor,
    geometry: TiltGeometry,
    cutoff: float = 0.5,
    falloff: float = 0.05,
    report=lambda: None,
) -> torch.Tensor:
    """Reconstruct a tomogram from tilt images.

    Parameters
    ----------
    images : Tensor, shape (n, Y, U), float32
        Tilt images on the geometry's detector.
    tilts_deg : Tensor, shape (n,)
        Tilt angles in degrees, in any order; each weighs half the gap between its neighbours.
    geometry : TiltGeometry
        Shape of the tomogram.
    cutoff, falloff : float
        See `ramp_filter`.
    report : callable, optional
        Called after each tilt.

    Returns
    -------
    Tensor, shape (Z, Y, X), float32
        In the units of the density that was projected.
    """
    ramp = ramp_filter(geometry, cutoff, falloff).to(images.device)
    steps = _angular_steps(tilts_deg).to(images.device)
    filtered = torch.fft.irfft(torch.fft.rfft(images, dim=-1) * ramp, n=geometry.detector_width, dim=-1)
    filtered = filtered * steps[:, None, None].float()
    return back_project(filtered, tilts_deg, geometry, report)


def lowpass(volume: torch.Tensor, resolution_angstrom: float, voxel_size: float) -> torch.Tensor:
    """Blur a volume with a Gaussian that halves the amplitude at a resolution.

    Parameters
    ----------
    volume : Tensor, shape (Z, Y, X), float32
    resolution_angstrom : float
        Å; the frequency 1 / resolution keeps half its amplitude.
    voxel_size : float
        Å per voxel.

    Returns
    -------
    Tensor, shape (Z, Y, X), float32
    """
    frequency = _frequency(volume, voxel_size)
    gain = torch.exp(-math.log(2) * (frequency * resolution_angstrom) ** 2)
    return torch.fft.irfftn(torch.fft.rfftn(volume) * gain, s=volume.shape)


def highpass(volume: torch.Tensor, length_angstrom: float, voxel_size: float) -> torch.Tensor:
    """Take out slow gradients; the frequency 1 / ``length_angstrom`` keeps half its amplitude.

    Takes and gives what `lowpass` does.
    """
    frequency = _frequency(volume, voxel_size)
    gain = 1 - torch.exp(-math.log(2) * (frequency * length_angstrom) ** 2)
    return torch.fft.irfftn(torch.fft.rfftn(volume) * gain, s=volume.shape)


def deconvolve(volume: torch.Tensor, defocus_um: float, microscope: Microscope, strength: float = 1.0) -> torch.Tensor:
    """Give back the low frequencies that the contrast transfer took, and damp the noisy high ones.

    The Wiener-like filter CTF / (CTF^2 + 1 / SNR) with an assumed, exponentially falling SNR: the "deconvolved"
    look that tomograms often have before anybody sees them.

    Parameters
    ----------
    volume : Tensor, shape (Z, Y, X), float32
        Reconstructed from phase-flipped images.
    defocus_um : float
        Mean defocus in micrometres.
    microscope : Microscope
    strength : float
        0.5 is mild, 1.5 strong (smooth).

    Returns
    -------
    Tensor, shape (Z, Y, X), float32
    """
    frequency = _frequency(volume, microscope.voxel_size)
    table = 512  # samples of the radial curve up to Nyquist
    line = contrast_transfer(torch.tensor([defocus_um]), (1, 2 * table), microscope, volume.device)[0, 0].abs()
    radial = torch.linspace(0, 1, len(line), device=volume.device)  # of Nyquist
    snr = 10.0 ** (3 * (1 - strength)) * torch.exp(-radial * 6 * strength) * 100
    curve = line / (line**2 + 1 / snr)
    position = (frequency * 2 * microscope.voxel_size * table).clamp(max=table)
    low = position.long().clamp(max=table - 1)
    gain = torch.lerp(curve[low], curve[low + 1], position - low)
    return torch.fft.irfftn(torch.fft.rfftn(volume) * gain, s=volume.shape)


def _frequency(volume: torch.Tensor, voxel_size: float) -> torch.Tensor:
    """Spatial frequency (1 / Å) of each coefficient of the half spectrum."""
    depth, height, width = volume.shape
    kz = torch.fft.fftfreq(depth, d=voxel_size, device=volume.device)[:, None, None]
    ky = torch.fft.fftfreq(height, d=voxel_size, device=volume.device)[None, :, None]
    kx = torch.fft.rfftfreq(width, d=voxel_size, device=volume.device)[None, None, :]
    return torch.sqrt(kz**2 + ky**2 + kx**2)


def _angular_steps(tilts_deg: torch.Tensor) -> torch.Tensor:
    """Radians of angle that each tilt stands for, shape (n,)."""
    if len(tilts_deg) == 1:
        return torch.ones(1)
    order = torch.argsort(tilts_deg)
    gaps = torch.deg2rad(tilts_deg[order].diff())
    edges = torch.cat([gaps[:1], (gaps[1:] + gaps[:-1]) / 2, gaps[-1:]])
    steps = torch.empty_like(edges)
    steps[order] = edges
    return steps
