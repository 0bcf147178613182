"""find_seeds and refine_seeds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from custom_transforms.labelling.refine import refine_seeds
from custom_transforms.labelling.seeds import find_seeds
from tests.labelling.plain_instances import plain_seeds

SHAPE = (12, 20, 28)
VOXEL = np.array([10.0, 10.0, 10.0])


def gaussian(center, sigma, shape=SHAPE, voxel=VOXEL):
    grid = np.indices(shape).reshape(3, -1).T
    squared = (((grid - center) * voxel) ** 2).sum(axis=1).reshape(shape)
    return np.exp(-squared / (2 * sigma**2)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    levels=st.sampled_from([2, 3, 6, 10_000]),
    min_distance=st.sampled_from([0.0, 10.0, 14.2, 30.0, 55.0]),
    voxel=st.sampled_from([(10.0, 10.0, 10.0), (20.0, 10.0, 10.0), (7.0, 13.0, 11.0)]),
)
def test_seeds_equal_the_plain_reference_with_plateaus_and_ties(seed, levels, min_distance, voxel):
    center_map = np.random.default_rng(seed).integers(0, levels, (6, 7, 8)) / np.float32(levels)
    peaks, heights = find_seeds(center_map, 0.3, min_distance, np.array(voxel))
    assert [tuple(p) for p in peaks.tolist()] == plain_seeds(center_map.astype(np.float32), 0.3, min_distance, voxel)
    assert np.array_equal(heights, center_map[tuple(peaks.T)].astype(np.float32))


def test_a_saturated_plateau_gives_one_seed_in_its_middle():
    center_map = np.clip(2 * gaussian((6, 9, 13), 40.0), 0, 1)  # clipped at 1, as a network's map is
    peaks, heights = find_seeds(center_map, 0.3, 10.0, VOXEL)
    assert peaks.tolist() == [[6, 9, 13]] and heights.tolist() == [1.0]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1.2, 2.0, 4.0]), st.sampled_from([(1, 1, 1), (1, 1.3, 0.9)]))
def test_wide_plateaus_of_any_form_equal_the_plain_reference(seed, gain, stretch):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 1.5)
    center_map = np.clip(np.round(4 * gain * noise / noise.max()) / 4, 0, 1).astype(np.float32)
    voxel = VOXEL * stretch
    peaks, _ = find_seeds(center_map, 0.2, 20.0, voxel)
    assert [tuple(p) for p in peaks.tolist()] == plain_seeds(center_map, 0.2, 20.0, tuple(voxel))


def test_a_shoulder_is_no_seed():
    center_map = np.zeros(SHAPE, np.float32)
    center_map[5, 5, 5:15] = 0.5
    center_map[5, 6, 15] = 0.6  # one end of the plateau touches a higher voxel
    assert find_seeds(center_map, 0.3, 0.0, VOXEL)[0].tolist() == [[5, 6, 15]]


def test_seeds_nearer_than_min_distance_go_and_at_min_distance_stay():
    center_map = np.zeros(SHAPE, np.float32)
    center_map[4, 4, 4], center_map[4, 4, 8], center_map[8, 4, 4] = 0.9, 0.8, 0.7
    assert len(find_seeds(center_map, 0.3, 40.0, VOXEL)[0]) == 3
    assert find_seeds(center_map, 0.3, 40.1, VOXEL)[0].tolist() == [[4, 4, 4]]
    assert len(find_seeds(center_map, 0.3, 40.1, np.array([11.0, 10.0, 10.0]))[0]) == 2


def test_threshold_is_inclusive_and_an_empty_map_has_no_seeds():
    center_map = np.zeros(SHAPE, np.float32)
    assert find_seeds(center_map, 0.3, 20.0, VOXEL)[0].shape == (0, 3)
    center_map[3, 3, 3] = 0.3
    assert len(find_seeds(center_map, 0.3, 20.0, VOXEL)[0]) == 1
    assert refine_seeds(center_map, np.zeros((0, 3)), 20.0, VOXEL)[0].shape == (0, 3)


def test_a_threshold_of_zero_is_an_error():
    with pytest.raises(ValueError, match="center_threshold: expected a number above 0, got 0.0"):
        find_seeds(np.zeros(SHAPE), 0.0, 20.0, VOXEL)


@pytest.mark.parametrize("center", [(6.5, 9.5, 13.5), (6.0, 9.5, 13.0), (5.7, 9.2, 14.4)])
@pytest.mark.parametrize("voxel", [(10.0, 10.0, 10.0), (14.0, 10.0, 10.0)])
def test_centers_between_voxels_come_out_unbiased(center, voxel):
    voxel = np.array(voxel)
    center_map = gaussian(center, 25.0, voxel=voxel)  # a particle of radius 50 Å
    peaks, _ = find_seeds(center_map, 0.3, 25.0, voxel)
    centers, heights = refine_seeds(center_map, peaks, 25.0, voxel)
    assert np.abs(centers - center).max() < 0.05
    assert 0.8 < heights[0] <= 1.0


def test_refined_centers_are_not_cut_to_integers_or_shifted():
    """Defect 4 of the original: centers were cut to integers, half a voxel off on average."""
    rng = np.random.default_rng(0)
    offsets = []
    for _ in range(20):
        center = np.array([6, 10, 14]) + rng.uniform(-0.5, 0.5, 3)
        center_map = gaussian(center, 25.0)
        offsets.append(refine_seeds(center_map, find_seeds(center_map, 0.3, 25.0, VOXEL)[0], 25.0, VOXEL)[0] - center)
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.02


def test_two_touching_particles_do_not_pull_each_others_center():
    near, far = (6.0, 9.5, 8.0), (6.0, 9.5, 14.0)
    center_map = np.maximum(gaussian(near, 15.0), 0.7 * gaussian(far, 15.0))
    peaks, _ = find_seeds(center_map, 0.3, 15.0, VOXEL)
    centers, _ = refine_seeds(center_map, peaks, 30.0, VOXEL)  # a ball that reaches the neighbour
    assert np.abs(centers - [near, far]).max() < 0.2


def test_a_noisy_peak_is_drawn_to_the_centroid():
    center = np.array([6.0, 10.0, 14.0])
    center_map = 0.8 * gaussian(center, 40.0)
    center_map[6, 10, 17] = 0.9  # noise makes a voxel off the center the highest
    peaks, _ = find_seeds(center_map, 0.3, 40.0, VOXEL)
    assert peaks.tolist() == [[6, 10, 17]]
    assert np.abs(refine_seeds(center_map, peaks, 40.0, VOXEL)[0] - center).max() < 0.35


def test_seeds_and_centers_follow_flips_and_permutations():
    rng = np.random.default_rng(3)
    center_map = ndimage.gaussian_filter(rng.random(SHAPE), 1.5).astype(np.float32)
    center_map = (center_map - center_map.min()) / np.ptp(center_map)
    voxel = np.array([12.0, 10.0, 9.0])
    peaks, _ = find_seeds(center_map, 0.3, 30.0, voxel)
    centers, _ = refine_seeds(center_map, peaks, 20.0, voxel)
    flipped = np.ascontiguousarray(center_map[:, ::-1].transpose(2, 0, 1))
    turned = voxel[[2, 0, 1]]
    peaks_flipped, _ = find_seeds(flipped, 0.3, 30.0, turned)
    centers_flipped, _ = refine_seeds(flipped, peaks_flipped, 20.0, turned)
    peaks_back, back = peaks_flipped[:, [1, 2, 0]], centers_flipped[:, [1, 2, 0]]
    peaks_back[:, 1], back[:, 1] = SHAPE[1] - 1 - peaks_back[:, 1], SHAPE[1] - 1 - back[:, 1]
    order = np.lexsort(peaks_back.T[::-1])
    assert len(peaks) > 3 and np.array_equal(peaks_back[order], peaks)
    np.testing.assert_allclose(back[order], centers, atol=2e-3)
