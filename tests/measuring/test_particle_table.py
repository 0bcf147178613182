"""measure_particles and filter_particles."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from custom_transforms.measuring.particle_table import (
    PARTICLE_COLUMNS,
    empty_particle_table,
    filter_particles,
    measure_particles,
)

SHAPE = (12, 20, 28)
VOXEL = np.array([20.0, 10.0, 5.0])
SETTINGS: dict[str, Any] = {"voxel_size_zyx": VOXEL, "center_threshold": 0.3, "neighbor_distance": 60.0}


def random_instances(seed=0, n=30, n_seeds=20):
    """Labels 1..n, some of them touching; the first seeds own label 1, 2, ..., two own nothing."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(SHAPE, np.int32)
    for label in range(1, n + 1):
        z, y, x = rng.integers(0, np.array(SHAPE) - 2)
        labels[z : z + 3, y : y + 3, x : x + 3] = label
    labels = np.searchsorted(np.unique(labels), labels).astype(np.int32)
    seed_labels = np.insert(np.arange(1, n_seeds - 1), [3, 9], 0)
    centers = rng.uniform(0, 11, (n_seeds, 3))
    return labels, rng.random(SHAPE).astype(np.float32), seed_labels, centers, rng.uniform(0.3, 1, n_seeds)


def test_the_table_equals_plain_statistics_of_each_label():
    labels, probability, seed_labels, centers, heights = random_instances()
    table = measure_particles(labels, probability, seed_labels, centers, heights, **SETTINGS)
    assert list(table.columns) == list(PARTICLE_COLUMNS)
    assert table["particle_id"].tolist() == list(range(1, len(table) + 1))
    assert set(table["label"]) == set(range(labels.max() + 1))
    for row in table.itertuples():
        voxels = np.argwhere(labels == row.label) if row.label else np.zeros((0, 3))
        seeded = row.particle_id <= len(seed_labels)
        center = centers[row.particle_id - 1] if seeded else voxels.mean(axis=0)
        mean = probability[labels == row.label].mean(dtype=np.float64) if row.label else 0.0
        faces = (voxels == 0) | (voxels == np.array(SHAPE) - 1)
        np.testing.assert_allclose([row.z_vox, row.y_vox, row.x_vox], center)
        np.testing.assert_allclose([row.z_angstrom, row.y_angstrom, row.x_angstrom], center * VOXEL)
        assert row.volume_vox == len(voxels) and row.volume_angstrom3 == len(voxels) * 1000.0
        assert row.score == pytest.approx((heights[row.particle_id - 1] if seeded else 0.3) * mean, abs=1e-8)
        assert row.touches_border == faces.any()
        assert row.dropped_by == ("" if row.label else "no_mask")
    assert (table["touches_border"]).sum() not in (0, len(table))


def test_neighbors_are_the_other_particles_with_voxels_within_the_distance():
    table = measure_particles(*random_instances(), **SETTINGS)
    points = table[["x_angstrom", "y_angstrom", "z_angstrom"]].to_numpy()
    for k in range(len(table)):
        near = np.linalg.norm(points - points[k], axis=1) <= 60.0
        near &= (table["label"] > 0).to_numpy()
        near[k] = False
        assert table["neighbors"][k] == near.sum()


def test_number_of_threads_changes_no_digit():
    torch.set_num_threads(3)
    many = measure_particles(*random_instances(), **SETTINGS)
    torch.set_num_threads(1)
    pd.testing.assert_frame_equal(measure_particles(*random_instances(), **SETTINGS), many, check_exact=True)


def test_nothing_gives_an_empty_table_with_all_columns():
    nothing = np.zeros((0, 3)), np.zeros(0)
    table = measure_particles(np.zeros(SHAPE, np.int32), np.zeros(SHAPE), np.zeros(0), *nothing, **SETTINGS)
    pd.testing.assert_frame_equal(table, empty_particle_table())
    filtered, labels = filter_particles(table, np.zeros(SHAPE, np.int32), neighbor_distance=10.0)
    pd.testing.assert_frame_equal(filtered, empty_particle_table())
    assert not labels.any()


def line_of_particles():
    """Five particles in a row along X, 50 Å apart, of 8, 8, 8, 8 and 2 voxels; then one far away."""
    labels = np.zeros((12, 20, 60), np.int32)
    for k in range(5):
        labels[2:4, 2:4, 5 * k : 5 * k + 2] = k + 1
    labels[2:4, 2, 20], labels[2:4, 3, 20:22], labels[2:4, 2, 21] = 5, 0, 0
    labels[8:10, 12:14, 55:57] = 6
    nothing = np.zeros((0, 3)), np.zeros(0)
    voxel = np.full(3, 10.0)
    table = measure_particles(
        labels, np.ones(labels.shape), np.zeros(0), *nothing,
        voxel_size_zyx=voxel, center_threshold=0.5, neighbor_distance=55.0,
    )  # fmt: skip
    return labels, table


def test_dropped_particles_stay_in_the_table_with_their_reason():
    labels, table = line_of_particles()
    before = labels.copy(), table.copy()
    assert table["volume_vox"].tolist() == [8, 8, 8, 8, 2, 8]
    filtered, kept = filter_particles(table, labels, min_size=3000.0, neighbor_number=1, neighbor_distance=55.0)
    assert filtered["particle_id"].tolist() == [1, 2, 3, 4, 5, 6]
    assert filtered["label"].tolist() == [1, 2, 3, 4, 0, 0]
    assert filtered["dropped_by"].tolist() == ["", "", "", "", "size", "neighbors"]
    assert filtered["neighbors"].tolist() == [1, 2, 2, 1, 1, 0]  # without the one that was too small
    assert np.array_equal(kept, np.where(labels < 5, labels, 0))
    assert np.array_equal(labels, before[0])
    pd.testing.assert_frame_equal(table, before[1])


def test_labels_are_renumbered_without_gaps_and_volumes_join_the_table():
    labels, table = line_of_particles()
    filtered, kept = filter_particles(table, labels, neighbor_number=2, neighbor_distance=55.0)
    assert filtered["label"].tolist() == [0, 1, 2, 3, 0, 0]
    sizes = np.bincount(kept.ravel())[1:]
    assert sizes.tolist() == filtered.loc[filtered["label"] > 0, "volume_vox"].tolist()
    again, same = filter_particles(filtered, kept, neighbor_distance=55.0)  # first reasons stay
    assert again["dropped_by"].tolist() == filtered["dropped_by"].tolist() and np.array_equal(same, kept)


def test_in_place_renumbers_the_volume_itself():
    labels, table = line_of_particles()
    expected = filter_particles(table, labels, min_size=3000.0, neighbor_distance=55.0)[1]
    kept = filter_particles(table, labels, min_size=3000.0, neighbor_distance=55.0, in_place=True)[1]
    assert kept is labels and np.array_equal(kept, expected)


def test_labels_of_any_memory_order_are_renumbered_the_same():
    labels, table = line_of_particles()
    expected = filter_particles(table, labels, neighbor_number=2, neighbor_distance=55.0)[1]
    backwards = np.ascontiguousarray(labels[::-1, :, ::-1])[::-1, :, ::-1]
    for same in (np.asfortranarray(labels), backwards):
        kept = filter_particles(table, same, neighbor_number=2, neighbor_distance=55.0)[1]
        assert kept.any() and np.array_equal(kept, expected)
        with pytest.raises(ValueError, match="in_place: expected labels in one block of C order"):
            filter_particles(table, same, neighbor_number=2, neighbor_distance=55.0, in_place=True)


def test_the_neighbour_filter_is_the_originals_rule_of_nearest_neighbours():
    """'Its 3 nearest neighbours all lie within 30 voxels' is 'at least 3 others within 30 voxels'."""
    rng = np.random.default_rng(4)
    points = rng.uniform(0, 80, (60, 3))
    table = measure_particles(
        np.arange(61, dtype=np.int32).reshape(1, 1, -1), np.ones((1, 1, 61)), np.arange(1, 61), points, np.ones(60),
        voxel_size_zyx=np.ones(3), center_threshold=0.3, neighbor_distance=30.0,
    )  # fmt: skip
    filtered, _ = filter_particles(
        table, np.arange(61, dtype=np.int32).reshape(1, 1, -1), neighbor_number=3, neighbor_distance=30.0
    )
    distances = np.sort(np.linalg.norm(points[:, None] - points, axis=2), axis=1)
    kept = (distances[:, 1:4] <= 30).all(axis=1)
    assert 0 < kept.sum() < 60
    assert ((filtered["dropped_by"] == "") == kept).all()


def test_wrong_input_says_what_was_expected():
    labels, table = line_of_particles()
    with pytest.raises(ValueError, match=r"neighbor_number: expected 0 \(off\) or more, got -1"):
        filter_particles(table, labels, neighbor_number=-1, neighbor_distance=9.0)
    with pytest.raises(ValueError, match="labels and probability: expected one shape"):
        measure_particles(labels, np.ones(SHAPE), np.zeros(0), np.zeros((0, 3)), np.zeros(0), **SETTINGS)
