"""From the density of one tomogram to its reconstruction: draws the imaging values and runs the stages."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from scripts.simulate.imaging import Microscope, TiltScheme, image_tilts, noise_scale, tilt_scheme
from scripts.simulate.phantoms import uniform
from scripts.simulate.placement import Stage
from scripts.simulate.projection import TiltGeometry, project
from scripts.simulate.reconstruct import deconvolve, highpass, lowpass, weighted_back_projection

__all__ = ["tomogram_of"]


def tomogram_of(
    stage: Stage, scene: dict, rng: np.random.Generator, device: torch.device
) -> tuple[np.ndarray, dict[str, Any]]:
    """Image and reconstruct what is on the stage.

    Parameters
    ----------
    stage : Stage
        Gives the density, protein positive.
    scene : dict
        From `load_scene`.
    rng : numpy Generator
    device : torch.device

    Returns
    -------
    tomogram : ndarray, shape (Z, Y, X), float32
        Protein bright; mean 0.
    drawn : dict
        Every value that was drawn, and the measured noise.
    """
    settings, voxel_size = scene["imaging"], scene["voxel_size"]
    drawn = _draw(settings, rng)
    noise_seed = int(rng.integers(2**62))
    noise = torch.Generator().manual_seed(noise_seed)  # on the CPU, so that every device draws the same
    scheme = tilt_scheme(drawn["tilt_max"], drawn["tilt_step"], settings["tilt_order"], drawn["dose_per_tilt"])
    microscope = Microscope(
        voxel_size,
        settings["voltage_kv"],
        settings["spherical_aberration_mm"],
        drawn["amplitude_contrast"],
        settings["ctf"],
        settings["mean_free_path"],
        (stage.slab[1] - stage.slab[0]) * voxel_size,
        drawn["b_factor"],
    )
    count = len(scheme.angles_deg)
    defocus = drawn["defocus_um"] + drawn["defocus_spread_um"] * torch.from_numpy(rng.normal(size=count))
    shifts = torch.from_numpy(rng.normal(size=(count, 2)) * drawn["shift_jitter"] / voxel_size)
    wobble = torch.from_numpy(rng.normal(size=count) * drawn["angle_jitter"])
    density = torch.from_numpy(stage.density + _background(stage, scene["background"], voxel_size, rng, drawn))
    geometry = TiltGeometry.for_volume(stage.shape_zyx)
    projections = project(density.to(device), scheme.angles_deg + wobble, geometry)
    images = image_tilts(projections, scheme, microscope, defocus, shifts)
    images, drawn["noise_std"] = _with_noise(images, scheme, drawn, settings["noise"], stage.shape_zyx[2], noise)
    tomogram = _reconstruct(images, scheme, geometry, scene, microscope, rng, drawn)
    drawn["tilts_deg"], drawn["defocus_each_um"] = scheme.angles_deg.tolist(), defocus.tolist()
    return (tomogram - tomogram.mean()).cpu().numpy(), {"imaging": drawn}


_PLAIN_RANGES = (
    "tilt_max",
    "tilt_step",
    "dose_per_tilt",
    "amplitude_contrast",
    "defocus_um",
    "defocus_spread_um",
    "b_factor",
    "noise_blur",
    "noise_color",
    "shift_jitter",
    "angle_jitter",
)


def _draw(settings: dict, rng: np.random.Generator) -> dict[str, Any]:
    drawn: dict[str, Any] = {name: uniform(settings[name], rng) for name in _PLAIN_RANGES}
    low, high = settings["snr"]
    drawn["snr"] = math.exp(rng.uniform(math.log(low), math.log(high)))  # evenly over its orders of magnitude
    return drawn


def _with_noise(
    images: torch.Tensor, scheme: TiltScheme, drawn: dict, wanted: bool, width: int, generator: torch.Generator
) -> tuple[torch.Tensor, list[float]]:
    if not wanted:
        return images, []
    scale = noise_scale(images, scheme.angles_deg, drawn["snr"], width)
    white = torch.randn(images.shape, generator=generator)
    if drawn["noise_blur"] > 0 or drawn["noise_color"] > 0:
        white = _colored(white, drawn["noise_blur"], drawn["noise_color"])
    return images + (white * scale[:, None, None]).to(images.device), scale.tolist()


def _colored(white: torch.Tensor, blur: float, color: float) -> torch.Tensor:
    """Shape the spectrum of white noise (n, Y, U): power 1 / k^color, a Gaussian blur in pixels; variance 1."""
    ky = torch.fft.fftfreq(white.shape[-2])[:, None]
    ku = torch.fft.rfftfreq(white.shape[-1])[None, :]
    square = ky**2 + ku**2
    gain = torch.exp(-2 * (math.pi * blur) ** 2 * square) * (square + 1 / white.shape[-1] ** 2) ** (-color / 4)
    shaped = torch.fft.irfft2(torch.fft.rfft2(white) * gain, s=white.shape[-2:])
    return shaped / shaped.std()


def _background(
    stage: Stage, settings: dict, voxel_size: float, rng: np.random.Generator, drawn: dict
) -> np.ndarray | float:
    """Unevenness of the solvent in the ice: what is not resolved there, as a correlated random field."""
    strength = uniform(settings["strength"], rng)
    correlation = uniform(settings["correlation"], rng) / voxel_size
    drawn["background"] = {"strength": strength, "correlation_vox": correlation}
    if strength == 0:
        return 0.0
    depth = stage.slab[1] - stage.slab[0]
    field = torch.from_numpy(rng.standard_normal((depth, *stage.shape_zyx[1:]), dtype=np.float32))
    field = lowpass(field, 2.66 * correlation, 1.0)  # a Gaussian of sigma = correlation, in voxels
    whole = np.zeros(stage.shape_zyx, np.float32)
    whole[stage.slab[0] : stage.slab[1]] = (strength * field / field.std()).numpy()
    return whole


def _reconstruct(
    images: torch.Tensor,
    scheme: TiltScheme,
    geometry: TiltGeometry,
    scene: dict,
    microscope: Microscope,
    rng: np.random.Generator,
    drawn: dict,
) -> torch.Tensor:
    settings = scene["reconstruction"]
    drawn["ramp_cutoff"] = uniform(settings["ramp_cutoff"], rng)
    drawn["ramp_falloff"] = uniform(settings["ramp_falloff"], rng)
    tomogram = weighted_back_projection(
        images, scheme.angles_deg, geometry, drawn["ramp_cutoff"], drawn["ramp_falloff"]
    )
    if rng.random() < settings["deconvolve_probability"]:
        drawn["deconvolve_strength"] = uniform(settings["deconvolve_strength"], rng)
        tomogram = deconvolve(tomogram, drawn["defocus_um"], microscope, drawn["deconvolve_strength"])
    if settings["highpass"] is not None and rng.random() < settings["highpass_probability"]:
        drawn["highpass"] = uniform(settings["highpass"], rng)
        tomogram = highpass(tomogram, drawn["highpass"], scene["voxel_size"])
    if settings["lowpass"] is not None and rng.random() < settings["lowpass_probability"]:
        drawn["lowpass"] = uniform(settings["lowpass"], rng)
        tomogram = lowpass(tomogram, drawn["lowpass"], scene["voxel_size"])
    return tomogram
