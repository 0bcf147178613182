"""Projection, contrast transfer, noise and reconstruction against what theory says."""

import math

import numpy as np
import pytest
import torch
from torch_ctf import calculate_relativistic_electron_wavelength

from scripts.simulate.imaging import Microscope, contrast_transfer, image_tilts, noise_scale, path_gain, tilt_scheme
from scripts.simulate.microscope import tomogram_of
from scripts.simulate.placement import Stage
from scripts.simulate.projection import TiltGeometry, back_project, project
from scripts.simulate.reconstruct import deconvolve, highpass, lowpass, weighted_back_projection
from scripts.simulate.scene import load_scene

SHAPE = (12, 20, 28)
TILTS = torch.tensor([0.0, 17.0, -43.0, 60.0])


def random_volume(shape=SHAPE, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def test_a_projection_is_a_central_slice():
    volume, geometry = random_volume(), TiltGeometry.for_volume(SHAPE)
    images = project(volume, TILTS, geometry).double()
    z, y, x = (torch.arange(n) - (n - 1) / 2 for n in SHAPE)
    u = torch.arange(geometry.detector_width) - (geometry.detector_width - 1) / 2
    for image, tilt in zip(images, TILTS.deg2rad().tolist(), strict=True):
        for step, row_frequency in ((0, 0.0), (3, 0.1), (9, -0.25)):
            k = step / geometry.detector_width
            of_image = (image * torch.exp(-2j * math.pi * (k * u[None, :] + row_frequency * y[:, None]))).sum()
            phase = k * (x[None, None, :] * math.cos(tilt) + z[:, None, None] * math.sin(tilt))
            of_volume = (volume * torch.exp(-2j * math.pi * (phase + row_frequency * y[None, :, None]))).sum()
            assert abs(of_image - of_volume) < 1e-3


def test_the_untilted_projection_is_the_sum_over_z():
    volume = random_volume((6, 10, 27))  # odd width: detector pixels and voxels coincide
    geometry = TiltGeometry.for_volume(volume.shape)
    margin = (geometry.detector_width - 27) // 2
    image = project(volume, torch.tensor([0.0]), geometry)[0, :, margin : margin + 27]
    torch.testing.assert_close(image, volume.sum(0), atol=1e-3, rtol=0)


def test_back_projection_is_the_adjoint_of_projection():
    volume, geometry = random_volume(), TiltGeometry.for_volume(SHAPE)
    images = random_volume((len(TILTS), SHAPE[1], geometry.detector_width), seed=1)
    left = (project(volume, TILTS, geometry).double() * images).sum()
    right = (volume.double() * back_project(images, TILTS, geometry)).sum()
    assert float(left) == pytest.approx(float(right), rel=1e-4)


def test_a_wrong_shape_names_what_was_expected():
    geometry = TiltGeometry.for_volume(SHAPE)
    with pytest.raises(ValueError, match=r"project: expected a volume of shape \(12, 20, 28\), got \(3, 3, 3\)"):
        project(torch.zeros(3, 3, 3), TILTS, geometry)
    with pytest.raises(ValueError, match="back_project: expected images of shape"):
        back_project(torch.zeros(1, 2, 3), TILTS, geometry)


def test_a_reconstructed_ball_stays_where_it_was_to_a_tenth_of_a_voxel():
    grid = np.indices((24, 32, 40))
    center = np.array([11.3, 15.8, 18.6])
    distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(grid, center, strict=True)))
    volume = torch.from_numpy(np.clip(5.5 - distance, 0, 1).astype(np.float32))
    geometry, tilts = TiltGeometry.for_volume(volume.shape), torch.arange(-60, 61, 3.0)
    tomogram = weighted_back_projection(project(volume, tilts, geometry), tilts, geometry).numpy()
    weights = np.where(distance < 8, np.maximum(tomogram, 0), 0)
    found = [(axis * weights).sum() / weights.sum() for axis in grid]
    np.testing.assert_allclose(found, center, atol=0.1)


def test_the_missing_wedge_is_empty():
    shape = (48, 40, 64)
    volume, geometry = random_volume(shape), TiltGeometry.for_volume(shape)
    tilts = torch.arange(-60, 61, 3.0)
    tomogram = weighted_back_projection(project(volume, tilts, geometry), tilts, geometry).numpy()
    for axis, n in enumerate(shape):
        tomogram = tomogram * np.hanning(n).reshape([-1 if i == axis else 1 for i in range(3)])
    power = np.abs(np.fft.fftn(tomogram)) ** 2
    kz, kx = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[2])[None, :]
    away = np.degrees(np.arctan2(np.abs(kx), np.abs(kz)))  # from the beam; the wedge is the 30 degrees around it
    # two Fourier voxels inside the wedge's edge, measured along the coarser axis
    inside = np.hypot(kx, kz) * np.sin(np.radians(np.clip(30 - away, 0, 90))) > 2 / min(shape[0], shape[2])
    deep = (away < 25) & inside & (np.hypot(kx, kz) < 0.5)
    outside = (away > 35) & (np.hypot(kx, kz) < 0.5)
    assert deep.sum() > 30
    inside_power = power.transpose(0, 2, 1)[deep].mean()
    assert inside_power < 0.01 * power.transpose(0, 2, 1)[outside].mean()


def test_the_contrast_transfer_is_zero_where_theory_puts_it():
    scope = Microscope(voxel_size=2.0, amplitude_contrast=0.07)
    size, defocus = 4096, 2.5
    line = contrast_transfer(torch.tensor([defocus]), (1, size), scope, torch.device("cpu"))[0, 0].numpy()
    crossings = np.flatnonzero(np.diff(np.sign(line)))
    fraction = line[crossings] / (line[crossings] - line[crossings + 1])
    found = (crossings + fraction) / (size * scope.voxel_size)
    wavelength = float(calculate_relativistic_electron_wavelength(300e3)) * 1e10
    assert wavelength == pytest.approx(0.019687, rel=1e-3)
    # pi L d k^2 - pi/2 Cs L^3 k^4 + asin(A) = n pi, solved for k^2 with Cs in Å
    cs, d = 2.7e7, defocus * 1e4
    b = wavelength * d
    expected = []
    for n in range(1, 20):
        rest = n - math.asin(0.07) / math.pi
        root = b**2 - 2 * cs * wavelength**3 * rest
        expected.append(math.sqrt((b - math.sqrt(root)) / (cs * wavelength**3)))
    np.testing.assert_allclose(found[: len(expected)], expected, rtol=2e-4)
    assert line[1] > 0  # protein stays positive at low frequencies


@pytest.mark.parametrize("kind", ["none", "flipped", "modulated"])
def test_imaging_modulates_the_spectrum_as_asked(kind):
    scope = Microscope(voxel_size=10.0, ctf=kind)
    projection = random_volume((1, 40, 63))
    projection[:, :16] = projection[:, -16:] = 0
    scheme = tilt_scheme(0.5, 1.0, dose_per_tilt=0.0)
    image = image_tilts(projection, scheme, scope, torch.tensor([5.0]))[0]
    padded = torch.nn.functional.pad(projection[0], (0, 0, 16, 16))
    transfer = contrast_transfer(torch.tensor([5.0]), tuple(padded.shape), scope, torch.device("cpu"))[0]
    gain = {"none": torch.ones_like(transfer), "flipped": transfer.abs(), "modulated": transfer}[kind]
    expected = torch.fft.irfft2(torch.fft.rfft2(padded) * gain, s=padded.shape)[16:-16]
    torch.testing.assert_close(image, expected, atol=1e-4, rtol=0)


def test_dose_takes_fine_detail_and_a_longer_path_takes_contrast():
    scope = Microscope(voxel_size=5.0, ctf="none", thickness_angstrom=3500.0)
    scheme = tilt_scheme(60, 30, dose_per_tilt=10.0)
    images = image_tilts(random_volume((5, 32, 33)).repeat(1, 1, 1), scheme, scope, torch.zeros(5))
    power = torch.fft.rfft2(images).abs().square()
    fine, coarse = power[:, 12:16, 12:16].mean((1, 2)), power[:, 1:3, 1:3].mean((1, 2))
    assert (fine / coarse)[-1] < 0.5 * (fine / coarse)[0]
    assert float(path_gain(torch.tensor([60.0]), scope)) == pytest.approx(math.exp(-0.5))


def test_shifts_move_the_image():
    projection = torch.zeros(1, 20, 27)
    projection[0, 9, 13] = 1
    scope, scheme = Microscope(voxel_size=10.0, ctf="none"), tilt_scheme(0.5, 1.0, dose_per_tilt=0.0)
    image = image_tilts(projection, scheme, scope, torch.zeros(1), torch.tensor([[2.0, -3.0]]))
    assert np.unravel_index(int(image.argmax()), image.shape)[1:] == (11, 10)


def test_the_measured_signal_to_noise_ratio_is_the_requested_one():
    stage = Stage((24, 60, 68), (0, 24))
    stage.density[8:16, 20:40, 20:50] = 1
    content = {"name": "a", "shape": [24, 60, 68], "voxel_size": 10, "particles": []}
    content["imaging"] = {"snr": 0.25, "tilt_step": 30, "ctf": "none", "defocus_spread_um": 0}
    scene = load_scene(content)
    _, drawn = tomogram_of(stage, scene, np.random.default_rng(0), torch.device("cpu"))
    scheme = tilt_scheme(60, 30)
    geometry = TiltGeometry.for_volume(stage.shape_zyx)
    clean = project(torch.from_numpy(stage.density), scheme.angles_deg, geometry)
    scope = Microscope(10.0, ctf="none", thickness_angstrom=240.0)
    images = image_tilts(clean, scheme, scope, torch.zeros(5))
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    scale = noise_scale(images, scheme.angles_deg, 0.25, 68)
    margin = (geometry.detector_width - 68) // 2
    signal = images[0][:, margin : margin + 68]
    for i, tilt in enumerate(scheme.angles_deg.tolist()):
        measured = float(signal.var() / (noise[i] * scale[i]).var()) / math.cos(math.radians(tilt))
        assert measured == pytest.approx(0.25, rel=0.1)
    np.testing.assert_allclose(drawn["imaging"]["noise_std"], scale, rtol=1e-5)


def test_tilt_schemes_cover_the_same_angles():
    symmetric, sweep = tilt_scheme(60, 3), tilt_scheme(60, 3, "continuous")
    assert len(symmetric.angles_deg) == 41
    assert sorted(symmetric.angles_deg.tolist()) == sweep.angles_deg.tolist()
    assert symmetric.angles_deg[:5].tolist() == [0, 3, -3, -6, 6]
    assert tilt_scheme(6, 3, "bidirectional").angles_deg.tolist() == [0, 3, 6, -3, -6]


def test_filters_halve_the_amplitude_where_they_say():
    x = torch.arange(64)
    wave = torch.cos(2 * math.pi * x / 8).expand(6, 10, 64).contiguous()
    for blurred in (lowpass(wave, 80.0, 10.0), highpass(wave, 80.0, 10.0)):
        torch.testing.assert_close(blurred, 0.5 * wave, atol=1e-5, rtol=0)


def test_deconvolution_gives_low_frequencies_back():
    x = torch.arange(64)
    slow, fast = (torch.cos(2 * math.pi * x / period).expand(6, 10, 64).contiguous() for period in (32, 2.5))
    scope = Microscope(voxel_size=10.0)
    gain = [float(deconvolve(wave, 3.0, scope).std() / wave.std()) for wave in (slow, fast)]
    assert gain[0] > 3 * gain[1]
