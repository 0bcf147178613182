"""Targets: exact against plain references, and the cases where a particle could get lost."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose, RandSpatialCropd
from scipy import ndimage

from custom_transforms.measuring.instance_centers import instance_centers
from custom_transforms.targets import (
    CenterTargetd,
    CheckLabelsd,
    MaskTargetd,
    center_target,
    mask_target,
    size_weights,
)

SHAPE = (12, 20, 28)
SIZE = np.array([20.0, 10.0, 8.0])
random_scenes = settings(max_examples=12, deadline=None, derandomize=True)
seeds = st.integers(0, 10**6)


def _scene(seed: int, n: int = 5) -> np.ndarray:
    """Touching balls (one hollow, one a single voxel) with gaps in their ids, and an ignored slab."""
    rng = np.random.default_rng(seed)
    grid = np.moveaxis(np.indices(SHAPE), 0, -1)
    labels = np.zeros(SHAPE, np.int32)
    for number in range(n):
        distance = np.linalg.norm(grid - rng.uniform(0, SHAPE), axis=-1)
        inner = 2.0 if number == 0 else 0.0
        labels[(distance <= rng.uniform(2.5, 6)) & (distance >= inner)] = 3 * number + 2
    labels[tuple(rng.integers(0, SHAPE))] = 40
    labels[:, :, rng.integers(0, 26) :][:, :, :2] = -1
    return labels


def _reference_filled(mask: np.ndarray, size: np.ndarray, closing: float) -> np.ndarray:
    """The filled mask on a volume padded by 4 voxels."""
    filled = ndimage.binary_fill_holes(np.pad(mask, 4))
    distance = np.linalg.norm((np.indices((7, 7, 7)) - 3).T * size, axis=-1).T
    return ndimage.binary_closing(filled, distance <= closing)


def _reference_centers(labels: np.ndarray, size: np.ndarray, closing: float) -> tuple[np.ndarray, np.ndarray]:
    centers, diameters = [], []
    for label in np.unique(labels[labels > 0]):
        voxels = np.argwhere(_reference_filled(labels == label, size, closing)) - 4
        centers.append(voxels.mean(axis=0))
        diameters.append(2 * (3 * len(voxels) * size.prod() / (4 * np.pi)) ** (1 / 3))
    return np.array(centers), np.array(diameters)


def _reference_gaussian(
    labels: np.ndarray, size: np.ndarray, fraction: float, closing: float, largest: float | None
) -> np.ndarray:
    target = np.zeros(labels.shape)
    centers, diameters = _reference_centers(labels, size, closing)
    for label, center, diameter in zip(np.unique(labels[labels > 0]), centers, diameters, strict=True):
        sigma = max(fraction * diameter, size.max())
        sigma = sigma if largest is None else min(sigma, largest * size.max())
        distance = np.linalg.norm((np.moveaxis(np.indices(labels.shape), 0, -1) - center) * size, axis=-1)
        value = np.where(distance <= 3 * sigma, np.exp(-(distance**2) / (2 * sigma**2)), 0)
        target = np.maximum(target, np.where((labels <= 0) | (labels == label), value, 0))
    return np.where(labels < 0, -1, target)


def _reference_weights(labels: np.ndarray, size: np.ndarray, balance: float) -> np.ndarray:
    """Voxel by voxel: of its own particle, else of the one whose Gaussian is highest there, within two sigma."""
    weights, nearest = np.ones(labels.shape), np.full(labels.shape, np.inf)
    centers, diameters = _reference_centers(labels, size, 5.0)
    for label, center, diameter in zip(np.unique(labels[labels > 0]), centers, diameters, strict=True):
        sigma = max(0.25 * diameter, size.max())
        weight = min(1, balance * size.max() / sigma) ** 2
        distance = np.linalg.norm((np.moveaxis(np.indices(labels.shape), 0, -1) - center) * size, axis=-1) / sigma
        near = (labels <= 0) & (distance <= 2) & (distance < nearest)
        nearest[near] = distance[near]
        weights[near | (labels == label)] = weight
    return weights


def _reference_distance(labels: np.ndarray, size: np.ndarray) -> np.ndarray:
    target = np.zeros(labels.shape)
    for label in np.unique(labels[labels > 0]):
        mask = labels == label
        distance = ndimage.distance_transform_edt(mask, sampling=size)
        cross = ndimage.generate_binary_structure(3, 1)
        interior = ndimage.binary_erosion(mask, cross, border_value=True)
        if interior.any():
            distance = np.where(interior, distance, 0)
        target[mask] = (distance / distance.max())[mask]
    return np.where(labels < 0, -1, target)


@random_scenes
@given(seeds, st.sampled_from([0.0, 5.0, 10.0, 20.0]))
def test_centers_and_diameters_equal_the_plain_reference(seed, closing):
    labels = _scene(seed)
    found = instance_centers(labels, SIZE, closing)
    centers, diameters = _reference_centers(labels, SIZE, closing)
    np.testing.assert_array_equal(found.ids, np.unique(labels[labels > 0]))
    np.testing.assert_allclose(found.centers_zyx_vox, centers, atol=1e-9)
    np.testing.assert_allclose(found.diameters_angstrom, diameters)


@random_scenes
@given(seeds, st.sampled_from([0.15, 0.25]), st.sampled_from([None, 1.0, 1.3]))
def test_gaussian_target_equals_the_plain_reference(seed, fraction, largest):
    labels = _scene(seed)
    target = center_target(labels, SIZE, "gaussian", sigma_fraction=fraction, sigma_max_voxels=largest)
    assert target.dtype == np.float32
    np.testing.assert_allclose(target, _reference_gaussian(labels, SIZE, fraction, 5.0, largest), atol=1e-6)


@random_scenes
@given(seeds, st.sampled_from([1.0, 1.3]))
def test_size_weights_equal_the_plain_reference(seed, balance):
    labels = _scene(seed)
    weights = size_weights(labels, SIZE, balance)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, _reference_weights(labels, SIZE, balance), atol=1e-6)


def test_a_balanced_target_carries_the_weights_as_a_second_channel():
    result = CenterTargetd(dtype="float16", balance_voxels=1.0)(_item(_scene(5), voxel_size_zyx=SIZE))["center"]
    assert result.shape == (2, *_scene(5).shape) and result.dtype == torch.float16
    np.testing.assert_allclose(result[0].float(), center_target(_scene(5), SIZE), atol=5e-4)
    np.testing.assert_allclose(result[1].float(), size_weights(_scene(5), SIZE, 1.0), atol=5e-4)
    assert (result[1] < 0.9).any()
    with pytest.raises(ValueError, match="balance_voxels: expected a number of at least 1, got 0.5"):
        size_weights(_scene(5), SIZE, 0.5)


@random_scenes
@given(seeds, st.sampled_from([(10.0, 10.0, 10.0), (20.0, 10.0, 8.0)]))
def test_distance_target_equals_the_plain_reference(seed, size):
    labels = _scene(seed)
    target = center_target(labels, size, kind="distance")
    assert target.dtype == np.float32
    np.testing.assert_allclose(target, _reference_distance(labels, np.array(size)), atol=1e-6)


@pytest.mark.parametrize("kind", ["gaussian", "distance"])
@random_scenes
@given(seeds)
def test_flips_and_axis_permutations_commute_with_the_target(kind, seed):
    labels = _scene(seed)
    target = center_target(labels, SIZE, kind)
    flipped = center_target(labels[::-1, :, ::-1], SIZE, kind)
    np.testing.assert_allclose(flipped, target[::-1, :, ::-1], atol=1e-6)
    turned = center_target(labels.transpose(2, 0, 1), SIZE[[2, 0, 1]], kind)
    np.testing.assert_allclose(turned, target.transpose(2, 0, 1), atol=1e-6)


@pytest.mark.parametrize("kind", ["gaussian", "distance"])
@random_scenes
@given(seeds, st.tuples(*[st.integers(0, 4)] * 3))
def test_shifting_the_labels_by_whole_voxels_shifts_the_target(kind, seed, shift):
    labels = np.pad(_scene(seed), 8)
    moved = center_target(np.roll(labels, shift, (0, 1, 2)), SIZE, kind)
    inside = (slice(4, -4),) * 3  # a Gaussian may reach the padding's edge, not beyond the roll
    expected = np.roll(center_target(labels, SIZE, kind), shift, (0, 1, 2))
    np.testing.assert_allclose(moved[inside], expected[inside], atol=1e-6)


@pytest.mark.parametrize("kind", ["gaussian", "distance"])
def test_the_target_does_not_depend_on_type_and_leaves_the_labels_untouched(kind):
    labels = _scene(3)
    expected = center_target(labels, SIZE, kind)
    for dtype in (np.int8, np.int16, np.int64, np.float32, np.float64):
        given_labels = labels.astype(dtype)
        given_labels.setflags(write=False)
        np.testing.assert_array_equal(center_target(given_labels, SIZE, kind), expected)
    tensor = torch.from_numpy(labels.astype(np.float32))[None]
    before = tensor.clone()
    target = center_target(tensor, SIZE, kind)
    assert isinstance(target, torch.Tensor) and target.shape == (1, *SHAPE)
    np.testing.assert_array_equal(target[0].numpy(), expected)
    assert torch.equal(tensor, before)
    unsigned = np.where(labels < 0, 0, labels)
    expected = center_target(unsigned, SIZE, kind)
    for name in ("uint8", "uint16", "uint32", "uint64"):
        np.testing.assert_array_equal(center_target(unsigned.astype(name), SIZE, kind), expected)


def test_a_gaussian_keeps_the_sub_voxel_center_instead_of_a_peak_of_one():
    labels = np.zeros(SHAPE, np.int16)
    labels[3:7, 5:9, 10:14] = 1  # center between voxels on every axis
    target = center_target(labels, 10.0)
    sigma = 0.25 * (64 * 6 / np.pi) ** (1 / 3)
    assert target.max() == pytest.approx(np.exp(-0.75 / (2 * max(sigma, 1) ** 2)))
    assert (target == target.max()).sum() == 8
    labels[3:8, 5:10, 10:15] = 1
    assert center_target(labels, 10.0)[5, 7, 12] == 1.0


@pytest.mark.parametrize("kind", ["gaussian", "distance"])
def test_two_touching_particles_keep_two_peaks_with_a_valley_between(kind):
    labels = np.zeros(SHAPE, np.int16)
    labels[3:8, 5:12, 5:12] = 1
    labels[3:8, 5:12, 12:19] = 2
    target = center_target(labels, 10.0, kind)
    line = target[5, 8, 5:19]
    assert line[3] == line[10] == 1.0
    assert line[6] == line[7] < 0.31
    alone = center_target(np.where(labels == 1, 1, 0), 10.0, kind)
    np.testing.assert_array_equal(target[labels == 1], alone[labels == 1])


def test_the_target_of_a_ball_has_at_its_surface_and_beyond_what_metadata_says():
    metadata = json.loads((Path(__file__).parents[1] / "configs" / "metadata.json").read_text())
    assert "0.14 at the surface of a ball, 0 from 1.5 radii on" in metadata["pred_classes"]
    distance = np.linalg.norm(np.moveaxis(np.indices((41, 41, 41)), 0, -1) - 20, axis=-1)
    for kind, at_surface in (("gaussian", 0.14), ("distance", 0.0)):
        made = center_target((distance <= 12.2).astype(np.int32), 10.0, kind)
        assert made[20, 20, 20] == pytest.approx(1, abs=0.01)
        assert made[20, 20, 32] == pytest.approx(at_surface, abs=0.01)  # the last voxel of the ball
        assert not made[distance > 12.2 * 1.52].any()


def test_a_hollow_particle_has_one_gaussian_peak_in_its_cavity():
    distance = np.linalg.norm((np.indices((21, 23, 25)).T - (10, 11, 12)), axis=-1).T
    labels = ((distance <= 8) & (distance >= 5)).astype(np.int16)
    target = center_target(labels, 40.0)
    assert target[10, 11, 12] == 1.0
    peaks = (target == ndimage.maximum_filter(target, 5)) & (target > 0.1)
    assert peaks.sum() == 1
    filled = (distance <= 8).sum()
    assert instance_centers(labels, 40.0).diameters_angstrom[0] == pytest.approx(40 * (filled * 6 / np.pi) ** (1 / 3))


def test_the_closing_fills_a_slit_only_when_it_is_wide_enough():
    labels = np.zeros(SHAPE, np.int16)
    labels[3:9, 4:14, 4:20] = 1
    labels[3:9, 4:14, 12] = 0  # a slit of one voxel, open to the outside
    labels[3:9, 4:14, 4:8] = 0
    assert instance_centers(labels, 10.0, 5.0).centers_zyx_vox[0, 2] == pytest.approx((4 * 9.5 + 7 * 16) / 11)
    assert instance_centers(labels, 10.0, 10.0).centers_zyx_vox[0, 2] > 13.49  # 13.5 but for the slit's rim


@pytest.mark.parametrize("kind", ["gaussian", "distance"])
def test_single_voxels_and_thin_particles_have_a_peak_of_one(kind):
    labels = np.zeros(SHAPE, np.int16)
    labels[2, 3, 4] = 1
    labels[0, 0, 0] = 2
    labels[9, 8:11, 12:17] = 3  # a plate of one layer
    target = center_target(labels, (20.0, 10.0, 10.0), kind)
    assert target[2, 3, 4] == target[0, 0, 0] == target[9, 9, 14] == 1.0
    assert np.isfinite(target).all()


def test_the_border_of_the_volume_is_no_boundary_for_the_distance():
    labels = np.zeros(SHAPE, np.int16)
    labels[:5] = 1
    target = center_target(labels, 10.0, kind="distance")
    np.testing.assert_allclose(target[:6, 9, 9], [1, 0.8, 0.6, 0.4, 0, 0])
    assert (center_target(np.ones(SHAPE, np.int16), 10.0, kind="distance") == 1).all()


@pytest.mark.parametrize("kind", ["gaussian", "distance"])
def test_no_particles_give_an_empty_target_with_ignored_voxels(kind):
    labels = np.zeros(SHAPE, np.int16)
    labels[0] = -1
    target = center_target(labels, 10.0, kind)
    assert (target[0] == -1).all() and (target[1:] == 0).all()
    found = instance_centers(labels, 10.0)
    assert found.ids.shape == (0,) and found.centers_zyx_vox.shape == (0, 3) and found.diameters_angstrom.shape == (0,)


def test_mask_target_is_int8_with_minus_one_where_ignored():
    labels = _scene(1)
    expected = np.sign(labels)
    targets = mask_target(labels), mask_target(labels.astype(float)), mask_target(torch.from_numpy(labels)).numpy()
    for target in targets:
        assert target.dtype == np.int8
        np.testing.assert_array_equal(target, expected)
    assert mask_target(np.array([300, 65535], np.uint16)).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (np.zeros(SHAPE), {"kind": "peak"}, "expected one of gaussian, distance, got 'peak'"),
        (np.zeros(SHAPE), {"sigma_fraction": 0.0}, "sigma_fraction: expected a number above 0, got 0.0"),
        (np.zeros(SHAPE), {"sigma_max_voxels": 0.5}, "sigma_max_voxels: expected a number of at least 1, or none"),
        (np.zeros(SHAPE), {"closing_angstrom": -1.0}, "closing_angstrom: expected a number >= 0"),
        (np.full(SHAPE, 0.5), {}, "expected whole numbers .* got fractions or NaN"),
        (np.full(SHAPE, np.nan), {}, "expected whole numbers up to 16,777,216, got nan"),
        (np.full(SHAPE, 2**24 + 1), {}, "Renumber the particles from 1"),
        (np.zeros((2, *SHAPE)), {}, r"expected the shape \(Z, Y, X\) or \(1, Z, Y, X\), got \(2, 12, 20, 28\)"),
    ],
)
def test_bad_labels_and_settings_are_named(labels, options, message):
    with pytest.raises(ValueError, match=message):
        center_target(labels, 10.0, **options)


def _item(labels: np.ndarray, **meta: object) -> dict:
    tensor = torch.from_numpy(labels.astype(np.float32))[None]
    affine = torch.diag(torch.tensor([*SIZE, 1.0], dtype=torch.float64))
    return {"label": MetaTensor(tensor, affine=affine, meta={"filename_or_obj": "t1_labels.mrc", **meta})}


def test_the_adapters_compute_both_targets_on_the_whole_volume_and_keep_the_metadata():
    item = _item(_scene(5), voxel_size_zyx=SIZE)
    before = item["label"].clone()
    chain = Compose([MaskTargetd(), CenterTargetd(kind="distance", dtype="float16"), CenterTargetd(target_key="blob")])
    result = chain(item)
    assert list(item) == ["label"] and torch.equal(item["label"], before)
    assert result["mask"].dtype == torch.int8 and result["center"].dtype == torch.float16
    np.testing.assert_array_equal(result["mask"][0].numpy(), mask_target(_scene(5)))
    np.testing.assert_array_equal(result["blob"][0].numpy(), center_target(_scene(5), SIZE))
    np.testing.assert_allclose(result["center"][0].float(), center_target(_scene(5), SIZE, "distance"), atol=5e-4)
    for key in ("mask", "center", "blob"):
        np.testing.assert_array_equal(result[key].affine, item["label"].affine)
        np.testing.assert_array_equal(result[key].meta["voxel_size_zyx"], SIZE)
        assert result[key].meta is not item["label"].meta
    crops = RandSpatialCropd(["mask", "blob"], roi_size=(8, 8, 8), random_size=False).set_random_state(0)(result)
    np.testing.assert_array_equal(crops["mask"] < 0, crops["blob"] < 0)


def test_a_label_without_a_voxel_size_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="label: expected voxel_size_zyx .* in its metadata, found none"):
        CenterTargetd()(_item(_scene(5)))
    with pytest.raises(ValueError, match="expected one of gaussian, distance, got 'peak'"):
        CenterTargetd(kind="peak")
    with pytest.raises(ValueError, match="dtype: expected float16 or float32, got 'int8'"):
        CenterTargetd(dtype="int8")


def test_too_few_labelled_particles_name_the_file_the_count_and_the_cure():
    labels = np.zeros(SHAPE)
    labels[0] = -1
    with pytest.raises(ValueError, match=r"t1_labels.mrc: expected at least 1 .* got 0 \(6,160 .* 560 .* prepare"):
        CheckLabelsd()(_item(labels))
    labels[5, 5, 5:9] = (1, 1, 4, 9)
    assert set(CheckLabelsd(minimum=3)(_item(labels))) == {"label"}
    with pytest.raises(ValueError, match="expected at least 4 .* got 3"):
        CheckLabelsd(minimum=4)(_item(labels))
