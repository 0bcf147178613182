"""report: volumes made small, and read back as the page does."""

from __future__ import annotations

import zlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scripts.report.images import (
    LabelCode,
    bin_slab,
    binning_candidates,
    encode_labels,
    encode_slices,
    fit_labels,
    fit_slices,
    to_grey,
)

SHAPE = (12, 20, 28)


def decode_labels_plainly(code: LabelCode) -> np.ndarray:
    """Undo the symbols as the page's JavaScript does, one voxel at a time."""
    labels = np.zeros(code.shape_zyx, np.int64)
    symbols = np.frombuffer(zlib.decompress(code.symbols), np.uint8).reshape(code.shape_zyx)
    values = iter(np.frombuffer(zlib.decompress(code.values), "<u4"))
    for z, y, x in np.ndindex(*code.shape_zyx):
        neighbor = {0: (z, y, x - 1), 1: (z, y - 1, x), 2: (z - 1, y, x)}.get(int(symbols[z, y, x]))
        if neighbor is None:
            labels[z, y, x] = next(values)
        elif min(neighbor) >= 0:
            labels[z, y, x] = labels[neighbor]
    return labels


@settings(max_examples=30, deadline=None)
@given(arrays(np.int32, st.tuples(*[st.integers(1, 5)] * 3), elements=st.sampled_from([-1, 0, 0, 1, 2, 70_000])))
def test_coded_labels_come_back_unchanged_and_ignore_becomes_background(labels):
    np.testing.assert_array_equal(decode_labels_plainly(encode_labels(labels, (1, 1, 1))), np.maximum(labels, 0))


def test_binned_labels_are_the_middle_voxels_of_their_blocks():
    labels = np.arange(np.prod(SHAPE), dtype=np.int32).reshape(SHAPE)
    code = encode_labels(labels, (5, 3, 3))
    z, y, x = [2, 7, 11], np.minimum(np.arange(7) * 3 + 1, 19), np.minimum(np.arange(10) * 3 + 1, 27)
    np.testing.assert_array_equal(decode_labels_plainly(code), labels[np.ix_(z, y, x)])


@settings(max_examples=30, deadline=None)
@given(arrays(np.float32, (2, 5, 7), elements=st.floats(-5, 5, width=32)), st.integers(1, 6), st.integers(1, 8))
def test_binning_averages_each_block_also_the_incomplete_ones(slab, by, bx):
    plain = [[slab[:, y : y + by, x : x + bx].mean() for x in range(0, 7, bx)] for y in range(0, 5, by)]
    np.testing.assert_allclose(bin_slab(slab, by, bx), plain, atol=1e-5)


def test_binning_gets_coarser_until_a_browser_can_hold_it():
    first = next(binning_candidates((464, 928, 928), np.full(3, 10.0)))
    assert first == (3, 2, 2)
    candidates = list(binning_candidates(SHAPE, np.array([30.0, 10.0, 10.0])))
    assert candidates[:3] == [(1, 1, 1), (2, 2, 2), (3, 3, 3)]  # long voxels: z is not binned more than y and x


def test_slices_are_binned_until_they_fit_and_none_fit_in_nothing():
    volume = np.random.default_rng(0).normal(size=(24, 80, 90)).astype(np.float32)
    free, tight = fit_slices(volume, np.ones(3), 10_000_000), fit_slices(volume, np.ones(3), 20_000)
    assert free.binning_zyx == (1, 1, 1) and len(free.jpegs) == 24
    assert tight.size <= 20_000 and tight.binning_zyx > (1, 1, 1) and len(tight.jpegs) == tight.shape_zyx[0]
    assert fit_slices(volume, np.ones(3), 10) is None
    assert fit_labels((volume > 0).astype(np.int16), np.ones(3), 2000).size <= 2000


def test_nonfinite_and_constant_volumes_still_give_slices():
    volume = np.full(SHAPE, 3.0, np.float32)
    assert len(fit_slices(volume, np.ones(3), 10**6).jpegs) == 12
    volume[0, 0, 0] = np.nan
    assert len(encode_slices(volume, (1, 1, 1), 70, (0.0, 1.0))) == 12
    assert to_grey(np.array([np.nan, -1.0, 0.5, 2.0]), (0.0, 1.0)).tolist() == [0, 0, 128, 255]
