"""mask_from_probability and the components behind it, against scipy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from custom_transforms.labelling.components import find_components, mask_from_probability, paint_runs
from tests.labelling.plain_instances import plain_mask

SHAPE = (12, 20, 28)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    fill=st.floats(0.02, 0.98),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 9), st.integers(1, 9)),
)
def test_components_equal_scipy_and_come_in_raster_order(seed, fill, shape):
    mask = np.random.default_rng(seed).random(shape) < fill
    expected, count = ndimage.label(mask)
    runs = find_components(mask)
    labels = np.zeros(shape, np.int32)
    paint_runs(labels, runs, np.arange(runs.sizes.size), np.arange(1, runs.sizes.size + 1))
    assert runs.sizes.size == count
    assert np.array_equal(runs.sizes, np.bincount(expected.ravel(), minlength=count + 1)[1:])
    assert np.array_equal(labels, expected)  # scipy numbers in raster order too


@pytest.mark.parametrize("min_size", [0, 1, 2, 5, 40])
def test_mask_equals_threshold_and_removal_of_small_components(min_size):
    probability = np.random.default_rng(1).random(SHAPE).astype(np.float32)
    before = probability.copy()
    mask = mask_from_probability(probability, 0.7, min_size)
    assert mask.dtype == bool
    assert np.array_equal(mask, plain_mask(probability, 0.7, min_size))
    assert np.array_equal(probability, before)


def test_a_component_of_exactly_the_minimum_size_stays():
    probability = np.zeros(SHAPE, np.float32)
    probability[3, 4, 5:9] = 1.0
    probability[3, 5, 9] = 1.0  # touches by an edge only: another component
    assert mask_from_probability(probability, 0.5, 4).sum() == 4
    assert mask_from_probability(probability, 0.5, 5).sum() == 0


def test_threshold_is_exclusive_in_single_precision_and_nan_is_background():
    probability = np.array([[[0.1, 0.2, np.nan]]], dtype=np.float32)
    assert mask_from_probability(probability, 0.1).tolist() == [[[False, True, False]]]


def test_number_of_threads_changes_no_component():
    mask = np.random.default_rng(2).random((70, 9, 11)) < 0.4
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(find_components(mask).component)
    assert np.array_equal(*found)


def test_a_channel_axis_is_an_error_that_says_what_came():
    with pytest.raises(ValueError, match=r"probability: expected an array with axes \(Z, Y, X\), got shape"):
        mask_from_probability(np.zeros((1, 2, 3, 4)), 0.5)
