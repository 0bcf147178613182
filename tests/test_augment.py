"""Augmentation in Fourier space: what the wedge takes away, and what stays."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import RandRotate90d

from custom_transforms.augment import (
    RandFourierAmplituded,
    RandWedgeMaskd,
    apply_fourier_amplitude,
    apply_wedge_mask,
    wedge_mask,
)

SHAPE = (12, 20, 28)
BOTH = [RandWedgeMaskd, RandFourierAmplituded]


def _image(seed: int = 0) -> torch.Tensor:
    return 3.0 + 2.0 * torch.randn((1, *SHAPE), generator=torch.Generator().manual_seed(seed))


def _missing(shape: tuple[int, ...], tilt: float, axis: str, size: tuple[float, float, float]) -> np.ndarray:
    """Voxels of the full FFT farther from the k_z = 0 plane than the largest tilt, by their angle."""
    k_z, k_y, k_x = np.meshgrid(*(np.fft.fftfreq(n, s) for n, s in zip(shape, size, strict=True)), indexing="ij")
    elevation = np.degrees(np.arctan2(np.abs(k_z), np.abs(k_x if axis == "y" else k_y)))
    return elevation > tilt + 1e-6


@pytest.mark.parametrize("axis", ["y", "x"])
@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (20.0, 10.0, 8.0)])
@pytest.mark.parametrize("shape", [SHAPE, (11, 21, 27)])
def test_power_inside_the_wedge_vanishes_and_outside_stays(axis, size, shape):
    image = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    before = np.abs(np.fft.fftn(image.numpy()))
    after = np.abs(np.fft.fftn(apply_wedge_mask(image, 50.0, axis, size).numpy()))
    missing = _missing(shape, 50.0, axis, size)
    assert 0.1 < missing.mean() < 0.8
    assert after[missing].max() < 1e-4 * after.max()
    kept = ~missing
    kept[0, 0, 0] = False  # the mean
    ratio = after[kept] / before[kept]
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-3)


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_the_wedge_stays_in_place_under_flips(axes):
    image = apply_wedge_mask(_image(), 50.0)[0]
    missing = _missing(SHAPE, 50.0, "y", (1.0, 1.0, 1.0))
    power = np.abs(np.fft.fftn(torch.flip(image, axes).numpy())) ** 2
    assert power[missing].max() < 1e-8 * power.max()
    flipped_first = apply_wedge_mask(torch.flip(_image()[0], axes), 50.0)
    torch.testing.assert_close(flipped_first, torch.flip(image, axes), atol=1e-4, rtol=1e-4)


def test_monais_in_plane_turn_by_90_degrees_turns_the_tilt_axis_from_y_to_x():
    """No transform of ours is needed: ``spatial_axes=(1, 2)`` is the (Y, X) plane."""
    image = apply_wedge_mask(_image(), 50.0, "y")
    turn = RandRotate90d("image", prob=1.0, max_k=1, spatial_axes=(1, 2))
    turned = turn({"image": image})["image"]
    assert turned.shape == (1, 12, 28, 20)
    torch.testing.assert_close(apply_wedge_mask(turned, 50.0, "x"), turned, atol=1e-4, rtol=1e-4)


def test_a_full_tilt_range_changes_nothing():
    torch.testing.assert_close(apply_wedge_mask(_image(), 90.0), _image())
    assert wedge_mask(SHAPE, 90.0).all() and wedge_mask(SHAPE, 90.0).shape == (12, 20, 15)


def test_the_amplitude_gain_is_the_stated_function_of_resolution_and_keeps_phases():
    image = _image()[0]
    before = np.fft.fftn(image.numpy())
    after = np.fft.fftn(apply_fourier_amplitude(image, [0.4, -0.3], (20.0, 10.0, 8.0)).numpy())
    frequencies = np.meshgrid(*map(np.fft.fftfreq, SHAPE, (20.0, 10.0, 8.0)), indexing="ij")
    k = np.minimum(np.linalg.norm(frequencies, axis=0) / (0.5 / 8.0), 1)
    ratio = after / before / np.exp(0.4 * np.cos(np.pi * k) - 0.3 * np.cos(2 * np.pi * k))
    ratio = ratio.ravel()[1:]  # without the mean
    np.testing.assert_allclose(ratio, np.full_like(ratio, ratio.real.mean()), rtol=2e-3)
    torch.testing.assert_close(apply_fourier_amplitude(image, [0.0, 0.0]), image)


@pytest.mark.parametrize("filtered", [lambda x: apply_wedge_mask(x, 40.0), lambda x: apply_fourier_amplitude(x, [1.0])])
def test_mean_and_standard_deviation_stay_and_a_constant_stays_constant(filtered):
    image = _image()
    before = image.clone()
    result = filtered(image)
    assert torch.equal(image, before)
    assert result.mean().item() == pytest.approx(image.mean().item(), abs=1e-4)
    assert result.std().item() == pytest.approx(image.std().item(), rel=1e-4)
    assert (result - image).abs().max() > 0.1
    torch.testing.assert_close(filtered(torch.full(SHAPE, 3.0)), torch.full(SHAPE, 3.0))


@pytest.mark.parametrize("transform", BOTH)
def test_probability_0_changes_nothing_and_probability_1_always_does(transform):
    image = _image()
    for _ in range(3):
        assert torch.equal(transform("image", prob=0.0)({"image": image})["image"], image)
        assert not torch.allclose(transform("image", prob=1.0)({"image": image})["image"], image)
    half = transform("image", prob=0.5).set_random_state(0)
    changed = sum(not torch.equal(half({"image": image})["image"], image) for _ in range(20))
    assert 3 <= changed <= 17


@pytest.mark.parametrize("transform", BOTH)
def test_the_same_seed_gives_the_same_images_and_each_call_another(transform):
    runs = []
    for _ in range(2):
        seeded = transform("image", prob=1.0).set_random_state(7)
        runs.append([seeded({"image": _image()})["image"] for _ in range(2)])
    assert torch.equal(runs[0][0], runs[1][0]) and torch.equal(runs[0][1], runs[1][1])
    assert not torch.allclose(runs[0][0], runs[0][1])


@pytest.mark.parametrize("transform", BOTH)
def test_only_the_keys_change_alike_and_the_metadata_and_the_input_stay(transform):
    meta = {"voxel_size_zyx": np.array([20.0, 10.0, 8.0]), "filename_or_obj": "t1.mrc"}
    image = MetaTensor(_image(), meta=meta)
    item = {"image": image, "clean": image.clone(), "label": torch.ones(1, *SHAPE)}
    before = image.clone()
    result = transform(["image", "clean"], prob=1.0).set_random_state(0)(item)
    assert torch.equal(item["image"], before) and item["image"] is image
    assert result["label"] is item["label"]
    assert torch.equal(result["image"], result["clean"])
    assert isinstance(result["image"], MetaTensor) and result["image"].meta["filename_or_obj"] == "t1.mrc"
    assert result["image"].dtype == torch.float32
    torch.testing.assert_close(result["image"].affine, image.affine)


def test_the_dictionary_wedge_uses_the_voxel_size_of_the_metadata():
    size = (20.0, 10.0, 8.0)
    image = MetaTensor(_image(), meta={"voxel_size_zyx": np.array(size)})
    result = RandWedgeMaskd("image", prob=1.0, tilt_range=(50.0, 50.0))({"image": image})["image"]
    np.testing.assert_allclose(result.numpy(), apply_wedge_mask(_image(), 50.0, "y", size).numpy())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: RandWedgeMaskd("image", tilt_range=(60.0, 40.0)),
            r"0 < low <= high <= 90 degrees, got \(60.0, 40.0\)",
        ),
        (lambda: RandWedgeMaskd("image", tilt_axis="z"), r"tilt_axis: expected one of y, x \(the beam is z\), got 'z'"),
        (lambda: wedge_mask(SHAPE, 0.0), "largest tilt: expected degrees above 0 and up to 90, got 0.0"),
        (lambda: wedge_mask(SHAPE, 60.0, "z"), "tilt_axis: expected one of y, x"),
        (
            lambda: RandFourierAmplituded("image", strength=-1.0),
            "expected strength >= 0 and orders >= 1, got strength -1",
        ),
    ],
)
def test_settings_out_of_range_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
