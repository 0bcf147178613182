"""Larger than memory: block by block and through files the result is the one in memory."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from custom_transforms.blockwise import detect_instances_blockwise
from custom_transforms.instances import METHODS, detect_instances

SHAPE = (20, 28, 36)
VOXEL = np.array([10.0, 10.0, 10.0])


def maps(seed, foreground, levels=0):
    """A random mask and center map: blobs with peaks inside and outside the mask, and plateaus if in few levels."""
    rng = np.random.default_rng(seed)
    noise = gaussian_filter(rng.normal(size=SHAPE), 1.5)
    probability = np.clip(0.5 + 2 * (noise - np.quantile(noise, 1 - foreground)), 0, 1)
    center = gaussian_filter(rng.normal(size=SHAPE), 1.2)
    center = np.clip(center / center.max(), 0, 1)
    if levels:
        center = np.round(center * levels) / levels
    return probability.astype(np.float32), center.astype(np.float32)


def blockwise(probability, center, block, **options):
    labels, table = detect_instances_blockwise(
        probability, center, block=block, scratch=lambda name, dtype: np.zeros(probability.shape, dtype), **options
    )
    return labels[:, :, :], table


def assert_same(streamed, whole):
    """Labels and whole numbers exactly; centers and scores to the rounding of a shift of the origin."""
    np.testing.assert_array_equal(streamed[0], whole[0])
    pd.testing.assert_frame_equal(streamed[1], whole[1], check_exact=False, rtol=1e-7, atol=1e-9)
    for column in ("particle_id", "label", "volume_vox", "neighbors", "dropped_by", "touches_border"):
        assert (streamed[1][column] == whole[1][column]).all(), column


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(3, 20), st.integers(4, 28), st.integers(5, 36)),
    st.sampled_from(METHODS),
    st.sampled_from([0.05, 0.2, 0.5, 0.9]),
    st.sampled_from([0, 6]),
    st.booleans(),
    st.sampled_from([1.0, 1.3]),
)
def test_blocks_of_any_size_give_what_the_whole_gives(seed, block, method, foreground, levels, require_seed, stretch):
    """From scattered specks to a mask that percolates through everything."""
    options = {
        "voxel_size_zyx": VOXEL * [stretch, 1, 1], "particle_diameter": 60.0, "mask_threshold": 0.5,
        "center_threshold": 0.2, "method": method, "require_seed": require_seed, "min_size": 3000.0,
        "neighbor_number": seed % 3, "neighbor_distance": 90.0,
    }  # fmt: skip
    probability, center = maps(seed, foreground, levels)
    assert_same(blockwise(probability, center, block, **options), detect_instances(probability, center, **options))


@pytest.mark.parametrize("method", METHODS)
def test_a_full_mask_and_an_empty_one_are_no_exceptions(method):
    options = {"voxel_size_zyx": VOXEL, "particle_diameter": 80.0, "mask_threshold": 0.5, "center_threshold": 0.2}
    _, center = maps(3, 0.5)
    for probability in (np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.float32)):
        for values in (center, np.zeros_like(center)):
            streamed = blockwise(probability, values, (7, 9, 11), method=method, **options)
            assert_same(streamed, detect_instances(probability, values, method=method, **options))


def test_a_plateau_across_blocks_is_one_peak():
    center = np.zeros(SHAPE, np.float32)
    center[8:12, 10:18, 10:26] = 1.0
    probability = np.where(center > 0, 0.9, 0.1).astype(np.float32)
    options = {"voxel_size_zyx": VOXEL, "particle_diameter": 200.0, "mask_threshold": 0.5, "center_threshold": 0.2}
    streamed = blockwise(probability, center, (5, 5, 5), **options)
    assert len(streamed[1]) == 1 and streamed[1]["volume_vox"][0] == 4 * 8 * 16
    assert_same(streamed, detect_instances(probability, center, **options))


def test_wrong_settings_are_errors():
    options = {"voxel_size_zyx": VOXEL, "particle_diameter": 80.0, "mask_threshold": 0.5, "center_threshold": 0.2}
    probability, center = maps(0, 0.2)
    with pytest.raises(ValueError, match="method: expected one of watershed, nearest, split"):
        blockwise(probability, center, 8, method="flood", **options)
    with pytest.raises(ValueError, match="probability and center_map: expected one shape"):
        blockwise(probability[1:], center, 8, **options)
    with pytest.raises(ValueError, match="center_threshold: expected a number above 0"):
        blockwise(probability, center, 8, **{**options, "center_threshold": 0.0})
