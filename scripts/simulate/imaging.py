"""What the microscope does to the projections: tilt scheme, contrast transfer, dose, thickness, noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch_ctf import calculate_ctf_2d
from torch_fourier_filter.dose_weight import critical_exposure

__all__ = ["Microscope", "TiltScheme", "contrast_transfer", "image_tilts", "noise_scale", "tilt_scheme"]

_MARGIN = 16  # pixels of padding along the tilt axis, so that the contrast transfer does not wrap around


@dataclass(frozen=True)
class TiltScheme:
    """Angles in the order of acquisition.

    Attributes
    ----------
    angles_deg : Tensor, shape (n,)
        Nominal tilt angles.
    dose_before : Tensor, shape (n,)
        Electrons per square Å that hit the specimen before, and half of those during, each image.
    """

    angles_deg: torch.Tensor
    dose_before: torch.Tensor


@dataclass(frozen=True)
class Microscope:
    """Optical values of one tilt series; lengths in Å unless the name says otherwise."""

    voxel_size: float
    voltage_kv: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.07
    ctf: str = "flipped"  # "none", "flipped" (phases corrected), "modulated" (left as they are)
    mean_free_path_angstrom: float = 3500.0
    thickness_angstrom: float = 0.0
    b_factor: float = 0.0  # square Å: the envelope exp(-B k^2 / 4) of motion, coherence and detector


def tilt_scheme(
    tilt_max: float = 60.0, tilt_step: float = 3.0, order: str = "dose_symmetric", dose_per_tilt: float = 3.0
) -> TiltScheme:
    """List the tilt angles in the order in which they are taken.

    Parameters
    ----------
    tilt_max, tilt_step : float
        Degrees; the angles run from -tilt_max to +tilt_max.
    order : str
        "dose_symmetric" (0, +s, -s, -2s, +2s, ...: Hagen's scheme), "bidirectional" (0 to +max, then -s to -max)
        or "continuous" (-max to +max).
    dose_per_tilt : float
        Electrons per square Å and image.

    Examples
    --------
    >>> tilt_scheme(6, 3).angles_deg.tolist()
    [0.0, 3.0, -3.0, -6.0, 6.0]
    """
    n = int(math.floor(tilt_max / tilt_step + 1e-6))
    if order == "continuous":
        angles = [i * tilt_step for i in range(-n, n + 1)]
    elif order == "bidirectional":
        angles = [i * tilt_step for i in range(n + 1)] + [-i * tilt_step for i in range(1, n + 1)]
    else:
        angles = [0.0]
        for i in range(1, n + 1):
            sign = 1 if i % 2 else -1
            angles += [sign * i * tilt_step, -sign * i * tilt_step]
    dose = (torch.arange(len(angles), dtype=torch.float64) + 0.5) * dose_per_tilt
    return TiltScheme(torch.tensor(angles, dtype=torch.float64), dose)


def contrast_transfer(
    defocus_um: torch.Tensor, shape_yx: tuple[int, int], microscope: Microscope, device: torch.device
) -> torch.Tensor:
    """Contrast transfer of each tilt image, positive at low frequencies for underfocus.

    Parameters
    ----------
    defocus_um : Tensor, shape (n,)
        Micrometres, underfocus positive.
    shape_yx : tuple of 2 int
        Pixels of the image.
    microscope : Microscope
    device : torch.device

    Returns
    -------
    Tensor, shape (n, Y, X // 2 + 1), float32
        On the half spectrum of ``torch.fft.rfft2``; sin(pi L d k^2 - pi/2 Cs L^3 k^4 + asin(amplitude contrast))
        with the electron wavelength L.
    """
    return calculate_ctf_2d(
        defocus=defocus_um.float().to(device),
        astigmatism=0.0,
        astigmatism_angle=0.0,
        voltage=microscope.voltage_kv,
        spherical_aberration=microscope.spherical_aberration_mm,
        amplitude_contrast=microscope.amplitude_contrast,
        phase_shift=0.0,
        pixel_size=microscope.voxel_size,
        image_shape=shape_yx,
        rfft=True,
        fftshift=False,
    )


def image_tilts(
    projections: torch.Tensor,
    scheme: TiltScheme,
    microscope: Microscope,
    defocus_um: torch.Tensor,
    shifts_yu_vox: torch.Tensor | None = None,
) -> torch.Tensor:
    """Turn projections of the density into noise-free images.

    Contrast transfer and envelope, loss of detail by dose (Grant and Grigorieff 2015) and of contrast by the longer
    path through a tilted specimen (the electrons that are lost would have carried it), and shifts left over by an
    imperfect alignment.

    Parameters
    ----------
    projections : Tensor, shape (n, Y, U), float32
        Protein positive; so is the result.
    scheme : TiltScheme
        n angles and doses.
    microscope : Microscope
    defocus_um : Tensor, shape (n,)
        Defocus of each image in micrometres.
    shifts_yu_vox : Tensor, shape (n, 2), optional
        Displacement of each image in voxels (y, u).

    Returns
    -------
    Tensor, shape (n, Y, U), float32
    """
    n, height, width = projections.shape
    padded_height = height + 2 * _MARGIN
    padded = torch.nn.functional.pad(projections, (0, 0, _MARGIN, _MARGIN))
    spectrum = torch.fft.rfft2(padded)
    if microscope.ctf != "none":
        transfer = contrast_transfer(defocus_um, (padded_height, width), microscope, projections.device)
        spectrum *= transfer.abs() if microscope.ctf == "flipped" else transfer
    ky = torch.fft.fftfreq(padded_height, device=projections.device)[:, None]
    ku = torch.fft.rfftfreq(width, device=projections.device)[None, :]
    frequency = torch.sqrt(ky**2 + ku**2) / microscope.voxel_size
    critical = critical_exposure(frequency.clamp(min=1e-4))
    envelope = torch.exp(-microscope.b_factor / 4 * frequency**2)
    gains = path_gain(scheme.angles_deg, microscope).float().to(projections.device)
    for i in range(n):
        spectrum[i] *= torch.exp(-float(scheme.dose_before[i]) / (2 * critical)) * (envelope * gains[i])
        if shifts_yu_vox is not None:
            turn = -2 * math.pi * (ky * float(shifts_yu_vox[i, 0]) + ku * float(shifts_yu_vox[i, 1]))
            spectrum[i] *= torch.polar(torch.ones_like(turn), turn)
    return torch.fft.irfft2(spectrum, s=(padded_height, width))[:, _MARGIN : _MARGIN + height].contiguous()


def path_gain(angles_deg: torch.Tensor, microscope: Microscope) -> torch.Tensor:
    """Contrast that is left of the untilted view's, because the beam's path grows as 1 / cos(tilt); shape (n,)."""
    longer = 1 / torch.cos(torch.deg2rad(angles_deg)) - 1
    return torch.exp(-0.5 * microscope.thickness_angstrom / microscope.mean_free_path_angstrom * longer)


def noise_scale(images: torch.Tensor, angles_deg: torch.Tensor, snr: float, width: int) -> torch.Tensor:
    """Standard deviation of the noise of each image for a signal-to-noise ratio.

    SNR = variance of the untilted (contrast-transferred) image over variance of its noise; at tilt t the noise
    is 1 / sqrt(cos t) times stronger.

    Parameters
    ----------
    images : Tensor, shape (n, Y, U), float32
        Noise-free images.
    angles_deg : Tensor, shape (n,)
    snr : float
        Above 0.
    width : int
        Columns of the volume (X): the wider detector's empty margins do not count.

    Returns
    -------
    Tensor, shape (n,), float32
    """
    untilted = images[int(torch.argmin(angles_deg.abs()))]
    start = (images.shape[-1] - width) // 2
    variance = untilted[:, start : start + width].double().var(unbiased=False)
    return ((variance / snr).sqrt().cpu() / torch.cos(torch.deg2rad(angles_deg)).sqrt()).float()
